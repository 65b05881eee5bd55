"""Preprocessed volumes on disk, raw float16 or float32, so that the graph reads them without Python.

A file's name is the hash of everything that its voxels depend on: each source file's path, size and time of change, every
preprocessing setting, and the version of this format. So a changed setting or a changed file gives another name, and nothing
stale can be served. Files are written beside their place and renamed into it: a kill, or two runs at once, never leave half a file.
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

import numpy as np

from data_pipelines.preprocess import Preprocess, prepare_tensor
from data_pipelines.volume import VolumeError

FORMAT = 1  # raise when the same settings would give other voxels than an earlier version of the code
SHOWN = 10


@dataclass(frozen=True)
class CachedVolumes:
    """Where each record's prepared voxels lie; `files[i]` is None where record i could not be read.

    Every file holds one volume of `shape` (depth, height, width, channels), C order, in `dtype`.
    """

    files: tuple[Path | None, ...]
    shape: tuple[int, int, int, int]
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
    shape = (*settings.shape, len(images[0]))
    dtype = cache_dtype(settings)
    files = [folder / f"{_key(paths, settings)}.{dtype}" for paths in images]
    _check_room(files, shape, dtype, folder=folder, max_gb=max_gb)
    folder.mkdir(parents=True, exist_ok=True)

    def prepare(index: int) -> str | None:
        problem = _prepare_one(images[index], settings, files[index])
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
    normalised = (
        settings.window_hu or settings.clip_percentiles or settings.zscore != "none" or settings.is_mask
    )
    return "float16" if normalised else "float32"


def explain_problems(problems: Sequence[str]) -> str:
    """The bad files of a data set as one message: the first ten, and the count of the rest."""
    shown = "\n".join(f"  {problem}" for problem in problems[:SHOWN])
    rest = f"\n  ... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return (
        f"{len(problems)} image(s) cannot be used:\n{shown}{rest}\n"
        "Mend or remove them, or leave them out with data.on_bad_file=skip."
    )


def _prepare_one(paths: tuple[Path, ...], settings: Preprocess, target: Path) -> str | None:
    if target.exists():
        return None
    try:
        voxels = prepare_tensor(paths, settings).astype(cache_dtype(settings))
    except (VolumeError, OSError) as error:
        return str(error)
    _write_whole(target, voxels)
    return None


def _write_whole(target: Path, voxels: np.ndarray) -> None:
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
    each = int(np.prod(shape)) * np.dtype(dtype).itemsize
    whole, missing = each * len(files), each * sum(not file.exists() for file in files)
    if whole > max_gb * 1e9:
        raise VolumeError(
            f"The cache of {len(files)} volumes of {'x'.join(map(str, shape))} {dtype} would take {whole / 1e9:.1f} GB; "
            f"cache.max_gb is {max_gb:g}. Raise it, or choose a coarser preprocess.spacing or a smaller preprocess.shape."
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
