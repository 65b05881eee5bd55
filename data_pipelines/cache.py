"""Preprocessed volumes on disk, raw float16 or float32, so that the graph reads them without Python.

A file's name is the hash of everything that its voxels depend on: each source file's path, size and time of
change, every preprocessing setting, and the version of this format. So a changed setting or a changed file
gives another name, and nothing stale can be served. Files are written beside their place and renamed into
it: a kill, or two runs at once, never leave half a file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipelines.geometry import to_tensor_axes
from data_pipelines.preprocess import Preprocess, prepare_volume
from data_pipelines.volume import VolumeError

FORMAT = 1  # raise when the same settings would give other voxels than an earlier version of the code
SHOWN = 10
Shape = tuple[int, int, int, int]  # depth, height, width, channels


@dataclass(frozen=True)
class CachedVolumes:
    """Where each record's prepared voxels lie; `files[i]` is None where record i could not be read.

    Every file holds one volume of `shape` (depth, height, width, channels), C order, in `dtype`.
    """

    files: tuple[Path | None, ...]
    shape: Shape
    dtype: str
    problems: tuple[str, ...]


def fill_cache(
    images: Sequence[tuple[Path, ...]],
    settings: Preprocess,
    *,
    folder: Path,
    max_gb: float = 20.0,
    workers: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> CachedVolumes:
    """Prepare every record once and say where the results lie.

    Args:
        images: per record its files, one per channel.
        settings: the preprocessing; its shape is that of every volume.
        folder: the cache, shared by runs.
        max_gb: how large this data set may become there (10^9 bytes).
        workers: threads; 0 means one per CPU. Reading and resampling release Python's lock.
        advance: called once per record, from any thread.

    Returns:
        One file per record, and a sentence per record that could not be prepared.

    Raises:
        VolumeError: the data set would not fit.
    """
    shape, dtype = _first_shape(images, settings), cache_dtype(settings)
    files = [folder / f"{_key(paths, settings)}.{dtype}" for paths in images]
    _check_room(files, shape, dtype, folder=folder, max_gb=max_gb)
    folder.mkdir(parents=True, exist_ok=True)

    def prepare(index: int) -> str | None:
        problem = _prepare_one(images[index], settings, files[index], shape=shape)
        advance()
        return problem

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        found = list(pool.map(prepare, range(len(images))))
    kept = tuple(None if problem else file for file, problem in zip(files, found, strict=True))
    return CachedVolumes(kept, shape, dtype, tuple(problem for problem in found if problem))


def cache_dtype(settings: Preprocess) -> str:
    """float16 where intensities were brought to the order of one (11 significant bits remain), else float32.

    Stored values of an unnormalised scan may exceed float16's 65504, or need more than 11 bits.
    """
    normalised = settings.window_hu or settings.clip_percentiles or settings.zscore != "none"
    return "float16" if normalised else "float32"


def explain_problems(problems: Sequence[str]) -> str:
    """The bad files of a data set as one message: the first ten, and the count of the rest."""
    shown = "\n".join(f"  {problem}" for problem in problems[:SHOWN])
    rest = f"\n  ... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return (
        f"{len(problems)} image(s) cannot be used:\n{shown}{rest}\n"
        "Mend or remove them, or leave them out with data.on_bad_file=skip."
    )


def _first_shape(images: Sequence[tuple[Path, ...]], settings: Preprocess) -> Shape:
    """The shape that the first readable record gives: only an image tells its channels and its native grid.

    Raises:
        VolumeError: no record can be read.
    """
    problems = []
    for paths in images:
        try:
            depth, height, width, channels = _prepare(paths, settings).shape
        except (VolumeError, OSError) as error:
            problems.append(str(error))
            continue
        return (depth, height, width, channels)
    raise VolumeError(explain_problems(problems))


def _prepare(paths: tuple[Path, ...], settings: Preprocess) -> NDArray[np.float32]:
    return to_tensor_axes(prepare_volume(paths, settings).voxels)


def _prepare_one(paths: tuple[Path, ...], settings: Preprocess, target: Path, *, shape: Shape) -> str | None:
    """Write one record's voxels unless they are there; a sentence when that is impossible."""
    if target.exists() and target.stat().st_size == _bytes(shape, cache_dtype(settings)):
        return None
    try:
        voxels = _prepare(paths, settings)
    except (VolumeError, OSError) as error:
        return str(error)
    if voxels.shape != shape:
        return (
            f"{paths[0]}: expected {_spoken(shape)} voxels as in the first image, found "
            f"{_spoken(voxels.shape)}; set preprocess.shape and preprocess.spacing so that all share a grid"
        )
    _write_whole(target, voxels.astype(cache_dtype(settings)))
    return None


def _bytes(shape: Sequence[int], dtype: str) -> int:
    return int(np.prod(shape)) * np.dtype(dtype).itemsize


def _spoken(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _write_whole(target: Path, voxels: NDArray[Any]) -> None:
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".partial-", delete=False) as file:
        file.write(np.ascontiguousarray(voxels).tobytes())
    Path(file.name).replace(target)


def _key(paths: tuple[Path, ...], settings: Preprocess) -> str:
    facts = {
        "format": FORMAT,
        "settings": dataclasses.asdict(settings),
        "files": [_identity(path) for path in paths],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _identity(path: Path) -> list[object]:
    """What tells that a file has changed; a folder (a DICOM series) counts with all its files."""
    members = sorted(path.iterdir()) if path.is_dir() else _with_partner(path)
    return [[str(member.absolute()), *_size_and_time(member)] for member in members]


def _with_partner(path: Path) -> list[Path]:
    """A `.hdr` is only half of an image: its `.img` counts too, and the other way round."""
    partner = {".hdr": ".img", ".img": ".hdr"}.get(path.suffix)
    return [path, path.with_suffix(partner)] if partner else [path]


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (-1, -1)
    return (stat.st_size, stat.st_mtime_ns)


def _check_room(
    files: Sequence[Path], shape: tuple[int, ...], dtype: str, *, folder: Path, max_gb: float
) -> None:
    each = _bytes(shape, dtype)
    whole, missing = each * len(files), each * sum(not file.exists() for file in files)
    if whole > max_gb * 1e9:
        raise VolumeError(
            f"The cache of {len(files)} volumes of {_spoken(shape)} {dtype} would take "
            f"{whole / 1e9:.1f} GB; cache.max_gb is {max_gb:g}. "
            "Raise it, or choose a coarser preprocess.spacing or a smaller preprocess.shape."
        )
    free = shutil.disk_usage(_existing(folder)).free
    if missing > 0.95 * free:
        raise VolumeError(
            f"The cache needs {missing / 1e9:.1f} GB more in {folder}, where {free / 1e9:.1f} GB are free; "
            "choose another cache.folder or a smaller preprocess.shape."
        )


def _existing(folder: Path) -> Path:
    """The nearest folder above that exists: disk space can be asked only of one."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())
