"""New scans: found, and prepared as in training by several threads, a few ahead of the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import PredictSettings, SettingsError
from voxlift.app.data.sources import region_columns
from voxlift.app.inference.ensemble import Ensemble, image_columns
from voxlift.data_pipelines.cache.format import VolumeSummary, choose_dtype, summarise_volume
from voxlift.data_pipelines.geometry import to_tensor_axes
from voxlift.data_pipelines.preprocess.prepare import prepare_stored, read_record
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.scans import TABLE_SUFFIXES, Scan, find_scans
from voxlift.data_pipelines.tables.reader import read_table
from voxlift.data_pipelines.tables.regions import NO_REGIONS, RegionColumns
from voxlift.data_pipelines.volume import Affine, VolumeError

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class PreparedScan:
    """A scan, prepared or with the reason why it cannot be used.

    Attributes:
        scan: The scan.
        voxels: float32 [D, H, W, C] as in training; None where the scan cannot be used.
        affine: 4x4 of the prepared grid, (width, height, depth) index to world mm, RAS+.
        summary: Spacing, size and intensities, for comparison with those of training.
        reason: Why it cannot be used; empty where it can.
    """

    scan: Scan
    voxels: NDArray[np.float32] | None = None
    affine: Affine | None = None
    summary: VolumeSummary | None = None
    reason: str = ""


def find_input_scans(
    source: str | Path, ensemble: Ensemble, asked: PredictSettings | None = None
) -> tuple[Scan, ...]:
    """Return the scans of a file, a folder or a table, read as the data of the first run by default.

    Args:
        source: Path of the file, folder or table.
        ensemble: The runs.
        asked: Columns of a table and folder of its paths, where they differ from those of the first run.

    Raises:
        ManifestError: There are no scans, or the table cannot be read.
        SettingsError: Masks were given to runs of centres, or the other way round.
    """
    asked = PredictSettings() if asked is None else asked
    subject_column = asked.subject_column
    own = ensemble.members[0].settings
    source = Path(source).expanduser()
    if subject_column is None and source.name.lower().endswith(TABLE_SUFFIXES) and source.is_file():
        usual = own.data.subject_column if own.data.name == "manifest" else "participant_id"
        # Not required: new tables often hold only file names.
        subject_column = usual if usual in read_table(source).columns else None
    return find_scans(
        source,
        image_columns=tuple(asked.image_columns) or image_columns(own),
        subject_column=subject_column,
        root=asked.root,
        regions=_choose_regions(ensemble, asked),
        joined_columns=ensemble.joined_columns,
    )


def _choose_regions(ensemble: Ensemble, asked: PredictSettings) -> RegionColumns:
    """Return the columns of the masks or centres that the runs need; none where they need none.

    Raises:
        SettingsError: Masks were given to runs of centres, or the other way round.
    """
    own = region_columns(ensemble.members[0].settings.data)
    if not ensemble.preprocess.mask:
        return NO_REGIONS
    given = RegionColumns(asked.mask_column, tuple(asked.centre_columns), asked.centre_space or "")
    if given.needed and bool(given.mask) != bool(own.mask):
        need = "mask_column" if own.mask else "centre_columns"
        raise SettingsError(f"{need}: the run needs it, as it was trained with {', '.join(own.needed)}.")
    return RegionColumns(given.mask or own.mask, given.centre or own.centre, given.space or own.space)


def prepare_scan(scan: Scan, settings: Preprocess, *, shape: Sequence[int | None]) -> PreparedScan:
    """Return a scan after a run's preprocessing, rounded like the cached volumes of its training.

    Args:
        scan: The scan; one that cannot be read is returned with its reason.
        settings: The run's preprocessing.
        shape: Input shape of the network (depth, height, width, channels); None where any size is accepted.
    """
    if scan.problem:
        return PreparedScan(scan, reason=scan.problem)
    try:
        stored = read_record(scan.images, settings)
        volume = prepare_stored(stored, settings, scan.region)
    except (VolumeError, OSError, ValueError, RuntimeError, MemoryError) as error:
        return PreparedScan(scan, reason=_describe_error(error))
    tensor = np.ascontiguousarray(to_tensor_axes(volume.voxels))
    tensor = tensor.astype(choose_dtype(tensor, settings))
    if any(expected not in (None, side) for expected, side in zip(shape, tensor.shape, strict=True)):
        expected = "x".join("any" if side is None else str(side) for side in shape)
        received = "x".join(map(str, tensor.shape))
        reason = (
            f"{scan.images[0]}: expected {expected} (depth, height, width, channels) as in training, "
            f"received {received}"
        )
        return PreparedScan(scan, reason=reason)
    return PreparedScan(scan, tensor.astype(np.float32), volume.affine, summarise_volume(stored, tensor))


def take_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of `size` items; the last may be shorter.

    >>> list(take_batches("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _describe_error(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
