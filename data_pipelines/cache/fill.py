"""Fill the cache: prepare every volume of a data set once, and keep its raw voxels on disk.

A file's name is the hash of everything that its voxels depend on: path, size and modification time of each
source file, of its mask, and of every file that a header refers to, the centre, every preprocessing setting,
and the version of this format. A changed setting or file thus gives another name, and nothing stale is
served. Files are written atomically: neither a kill nor two runs at once leave half a file. Beside each file
lies its metadata, see `cache.format`.

All volumes of a data set are stored in one type. The first one decides which; where a later one needs a
wider type, the data set is stored in that one, and a small file keeps the outcome for the next run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.cache.format import (
    CacheFormat,
    Shape,
    check_size,
    choose_dtype,
    describe_size,
    encode_format,
    extract_metadata,
    format_shape,
    read_format,
    wider_dtype,
    write_metadata,
)
from voxlift.data_pipelines.files import atomic_write, remove_leftovers
from voxlift.data_pipelines.geometry import to_tensor_axes
from voxlift.data_pipelines.parallel import Mapper, map_by_threads
from voxlift.data_pipelines.preprocess.prepare import prepare_stored, read_record
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.readers.identity import find_reading, identify_image
from voxlift.data_pipelines.tables.regions import Region
from voxlift.data_pipelines.volume import Affine, Stored, VolumeError

FORMAT_VERSION = 3  # raise when the same settings would give other voxels than an earlier version
MAX_SHOWN = 10


@dataclass(frozen=True)
class CachedVolumes:
    """The prepared files of a data set.

    Attributes:
        files: One per record; None where the record could not be prepared.
        shape: Of each volume, (depth, height, width, channels), stored in C order.
        dtype: Of the stored voxels.
        problems: One sentence per record that could not be prepared, in order.
    """

    files: tuple[Path | None, ...]
    shape: Shape
    dtype: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """A record's files, one per channel, and its mask or centre."""

    images: tuple[Path, ...]
    region: Region | None


@dataclass(frozen=True)
class _Task:
    """A record and the file that its volume is written to."""

    source: _Source
    target: Path


@dataclass(frozen=True, eq=False)
class _PreparedRecord:
    """A record's images as decoded, what preprocessing made of them, float32 [D, H, W, C], and its affine."""

    stored: list[Stored]
    voxels: NDArray[np.float32]
    affine: Affine


@dataclass(frozen=True)
class _Outcome:
    """What became of one record: a problem, or the type that its voxels need."""

    problem: str | None = None
    dtype: str | None = None


def fill_cache(
    images: Sequence[tuple[Path, ...]],
    settings: Preprocess,
    *,
    folder: Path,
    regions: Sequence[Region | None] | None = None,
    max_gb: float = 20.0,
    workers: int = 0,
    mapper: Mapper | None = None,
    advance: Callable[[], None] = lambda: None,
    report: Callable[[str], None] = lambda _: None,
) -> CachedVolumes:
    """Prepare every record once and return where the results are.

    Args:
        images: Per record its files, one per channel.
        settings: The preprocessing; its shape is that of every volume.
        folder: The cache, shared by runs.
        regions: Per record its mask or centre, which `settings.mask` needs; None where no record has one.
        max_gb: The most that this data set may take there, in 10^9 bytes.
        workers: Threads; 0 means one per CPU. Reading and resampling release Python's lock.
        mapper: Prepares the records in other processes; None: by threads.
        advance: Called once per record.
        report: Called with the size as text before anything is written.

    Returns:
        One file per record, and a sentence per record that could not be prepared.

    Raises:
        VolumeError: The data set would not fit, or no record can be read.
    """
    sources = [
        _Source(paths, region) for paths, region in zip(images, regions or (None,) * len(images), strict=True)
    ]
    keys = [_key(source, settings) for source in sources]
    format_file = folder / f"{hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:32]}.json"
    cache_format, first = read_format(format_file), None
    if cache_format is None:
        cache_format, first = _learn_format(sources, settings)
    mapper = map_by_threads(workers) if mapper is None else mapper
    fill = partial(_fill, sources, keys, settings, folder=folder, max_gb=max_gb, mapper=mapper, report=report)
    files, outcomes = fill(cache_format=cache_format, first=first, advance=advance)
    while (needed := _widest_dtype(cache_format, outcomes)) != cache_format.dtype:
        # A volume does not fit into the first one's type: all are stored in the type that holds it.
        cache_format = replace(cache_format, dtype=needed)
        files, outcomes = fill(cache_format=cache_format, first=None, advance=lambda: None)
    if read_format(format_file) != cache_format:  # a complete cache may be read-only
        _write(format_file, encode_format(cache_format))
    return CachedVolumes(
        files=tuple(None if outcome.problem else file for file, outcome in zip(files, outcomes, strict=True)),
        shape=cache_format.shape,
        dtype=cache_format.dtype,
        problems=tuple(outcome.problem for outcome in outcomes if outcome.problem),
    )


def explain_problems(problems: Sequence[str], *, is_any_left: bool = True) -> str:
    """Return the bad files of a data set as one message: the first ten, and the count of the rest.

    Args:
        problems: One sentence per file.
        is_any_left: Whether there are other files, so that these may be left out.
    """
    shown = "\n".join(f"  {problem}" for problem in problems[:MAX_SHOWN])
    rest = f"\n  ... and {len(problems) - MAX_SHOWN} more" if len(problems) > MAX_SHOWN else ""
    how_to_fix = "Fix or remove them, or leave them out with data.on_bad_file=skip."
    if not is_any_left:
        how_to_fix = "No usable image is left: fix the files, or the settings that they do not fit."
    return f"{len(problems)} image(s) cannot be used:\n{shown}{rest}\n{how_to_fix}"


def _key(source: _Source, settings: Preprocess) -> str:
    values = asdict(settings)
    dependencies = {
        "format": FORMAT_VERSION,
        "settings": values,
        "files": [identify_image(path) for path in source.images],
    }
    paths = source.images
    if settings.mask:
        dependencies["region"] = _identify_region(source.region)
        paths += () if source.region is None or source.region.mask is None else (source.region.mask,)
    else:  # absent, so that what earlier versions prepared stays valid
        for name in ("mask", "mask_margin_mm", "mask_components"):
            del values[name]
    readings = [find_reading(path) for path in paths]
    if any(readings):  # absent otherwise, so that what earlier versions prepared rightly stays valid
        dependencies["readings"] = readings
    return hashlib.sha256(json.dumps(dependencies, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _identify_region(region: Region | None) -> list[Any]:
    if region is None:
        return []
    return [region.centre, None if region.mask is None else identify_image(region.mask)]


def _learn_format(
    sources: Sequence[_Source], settings: Preprocess
) -> tuple[CacheFormat, tuple[int, _PreparedRecord]]:
    """Return the format that the first readable record gives, and that record's index and volume.

    Channels, native grid and type of numbers are known only once an image is prepared.

    Raises:
        VolumeError: No record can be read.
    """
    problems = []
    for index, source in enumerate(sources):
        try:
            prepared = _prepare(source, settings)
        except (VolumeError, OSError) as error:
            problems.append(str(error))
            continue
        depth, height, width, channels = prepared.voxels.shape
        dtype = choose_dtype(prepared.voxels, settings)
        return CacheFormat((depth, height, width, channels), dtype), (index, prepared)
    raise VolumeError(explain_problems(problems, is_any_left=False))


def _fill(
    sources: Sequence[_Source],
    keys: Sequence[str],
    settings: Preprocess,
    *,
    cache_format: CacheFormat,
    first: tuple[int, _PreparedRecord] | None,
    folder: Path,
    max_gb: float,
    mapper: Mapper,
    advance: Callable[[], None],
    report: Callable[[str], None],
) -> tuple[list[Path], list[_Outcome]]:
    """Make one pass over all records in one format; return the file and the outcome of each."""
    files = [folder / f"{key}.{cache_format.dtype}" for key in keys]
    report(describe_size(files, cache_format, folder=folder))
    check_size(files, cache_format, folder=folder, max_gb=max_gb)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
    except OSError as error:
        raise VolumeError(_unwritable_message(folder, error)) from error
    if first is not None and not _is_prepared(files[first[0]], cache_format):
        _write_volume(files[first[0]], first[1], cache_format.dtype)

    tasks = [_Task(source, file) for source, file in zip(sources, files, strict=True)]
    todo = [task for task in tasks if not _is_prepared(task.target, cache_format)]
    for _ in range(len(tasks) - len(todo)):
        advance()
    fill_one = partial(_fill_one, settings=settings, cache_format=cache_format)
    outcomes: dict[int, _Outcome] = {}
    for task, outcome in zip(todo, mapper(fill_one, todo, lost=_describe_lost), strict=True):
        outcomes[id(task)] = outcome
        advance()
    return files, [outcomes.get(id(task), _Outcome()) for task in tasks]


def _describe_lost(task: _Task, problem: str) -> _Outcome:
    """Return the outcome of a record that ended every process which prepared it."""
    return _Outcome(f"{task.source.images[0]}: {problem}")


def _fill_one(task: _Task, *, settings: Preprocess, cache_format: CacheFormat) -> _Outcome:
    """Write one record's volume; a wider type than that of the format gets its own file."""
    source, target = task.source, task.target
    if _is_prepared(target, cache_format):  # by another process meanwhile, or a record that stands twice
        return _Outcome()
    try:
        prepared = _prepare(source, settings)
    except (VolumeError, OSError) as error:
        return _Outcome(str(error))
    if prepared.voxels.shape != cache_format.shape:
        return _Outcome(
            f"{source.images[0]}: expected {format_shape(cache_format.shape)} voxels as in the first image,"
            f" found {format_shape(prepared.voxels.shape)}; set preprocess.shape and preprocess.spacing so"
            " that all share a grid"
        )
    needed = wider_dtype(cache_format.dtype, choose_dtype(prepared.voxels, settings))
    _write_volume(target.with_suffix(f".{needed}"), prepared, needed)
    return _Outcome(dtype=needed)


def _is_prepared(target: Path, cache_format: CacheFormat) -> bool:
    return target.exists() and target.stat().st_size == cache_format.bytes


def _widest_dtype(cache_format: CacheFormat, outcomes: Sequence[_Outcome]) -> str:
    needed = [outcome.dtype for outcome in outcomes if outcome.dtype is not None]
    return reduce(wider_dtype, needed, cache_format.dtype)


def _prepare(source: _Source, settings: Preprocess) -> _PreparedRecord:
    stored = read_record(source.images, settings)
    volume = prepare_stored(stored, settings, source.region)
    return _PreparedRecord(stored, to_tensor_axes(volume.voxels), volume.affine)


def _write_volume(target: Path, prepared: _PreparedRecord, dtype: str) -> None:
    """Write the metadata, then the voxels, so that a prepared file never lacks its metadata."""
    voxels = np.ascontiguousarray(prepared.voxels, dtype)
    metadata = extract_metadata(prepared.stored, voxels, prepared.affine)
    try:
        write_metadata(target, metadata)
    except OSError as error:
        raise VolumeError(_unwritable_message(target.parent, error)) from error
    _write(target, voxels.data)


def _write(target: Path, content: bytes | memoryview) -> None:
    try:
        with atomic_write(target) as path:
            path.write_bytes(content)
    except OSError as error:
        raise VolumeError(_unwritable_message(target.parent, error)) from error


def _unwritable_message(folder: Path, error: OSError) -> str:
    return (
        f"cache.folder={folder}: prepared volumes cannot be written there ({error.strerror or error}). "
        "Free some space there, or choose another cache.folder; then start the same command again."
    )
