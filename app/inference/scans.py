"""New scans made ready for a run's network: several at once, in order, never more in memory than needed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.cache.format import dtype_for
from voxlift.data_pipelines.cache.ranges import Sketch, sketch_record
from voxlift.data_pipelines.geometry import to_tensor_axes
from voxlift.data_pipelines.preprocess.prepare import prepare_stored, read_record
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.scans import Scan
from voxlift.data_pipelines.volume import Affine, VolumeError

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan, and what became of it.

    Attributes:
        scan: the scan.
        voxels: float32 [D, H, W, C] as training saw its volumes; None where the scan cannot be used.
        affine: of that grid.
        sketch: what the scan is like, to be compared with what training saw.
        reason: why it cannot be used, "" where it can.
    """

    scan: Scan
    voxels: NDArray[np.float32] | None = None
    affine: Affine | None = None
    sketch: Sketch | None = None
    reason: str = ""


def prepare_scan(scan: Scan, settings: Preprocess, *, shape: tuple[int | None, ...]) -> Prepared:
    """A scan through a run's own preprocessing, rounded as training's prepared files are.

    Args:
        scan: the scan; one that cannot be read comes back with its reason.
        settings: the run's.
        shape: what the network takes (depth, height, width, channels); None where any size is welcome.
    """
    if scan.problem:
        return Prepared(scan, reason=scan.problem)
    try:
        stored = read_record(scan.images, settings)
        volume = prepare_stored(stored, settings)
    except (VolumeError, OSError, ValueError, RuntimeError, MemoryError) as error:
        return Prepared(scan, reason=_one_line(error))
    tensor = np.ascontiguousarray(to_tensor_axes(volume.voxels))
    tensor = tensor.astype(dtype_for(tensor, settings))
    if any(wanted not in (None, side) for wanted, side in zip(shape, tensor.shape, strict=True)):
        return Prepared(scan, reason=_misfit(scan, shape, tensor.shape))
    return Prepared(scan, tensor.astype(np.float32), volume.affine, sketch_record(stored, tensor))


def map_in_order(
    function: Callable[[Given], Made], items: Iterable[Given], *, workers: int = 0, ahead: int = 4
) -> Iterator[Made]:
    """`function` of each item, in order, computed by threads that run at most `ahead` items ahead."""
    remaining = iter(items)
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        running: deque[Future[Made]] = deque()
        try:
            for item in remaining:
                running.append(pool.submit(function, item))
                if len(running) > ahead:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:  # the reader left early: what has not begun shall not begin
                future.cancel()


def take_batches(items: Iterable[Given], size: int) -> Iterator[list[Given]]:
    """Lists of `size` items; the last may be shorter.

    >>> list(take_batches("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    batch: list[Given] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _misfit(scan: Scan, shape: Sequence[int | None], received: Sequence[int]) -> str:
    wanted = "x".join("any" if side is None else str(side) for side in shape)
    return (
        f"{scan.images[0]}: expected {wanted} (depth, height, width, channels) as the run was trained with, "
        f"found {'x'.join(map(str, received))}"
    )


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
