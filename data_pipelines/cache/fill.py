"""Preprocessed volumes on disk: raw voxels in the smallest type that serves, read without Python.

A file's name is the hash of everything that its voxels depend on: each source file's path, size and time of
change, every preprocessing setting, and the version of this format. So a changed setting or a changed file
gives another name, and nothing stale can be served. Files are written beside their place and renamed into
it: a kill, or two runs at once, never leave half a file.

All volumes of a data set are stored in one type. The first one tells which; where a later one needs a wider
type, the data set is stored in that one, and a small file keeps the outcome for the next run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.atomic import atomic_write
from voxlift.data_pipelines.cache.format import (
    CacheFormat,
    Shape,
    check_room,
    choose_dtype,
    form_text,
    recall_form,
    say_room,
    spoken_shape,
    wider,
)
from voxlift.data_pipelines.geometry import to_tensor_axes
from voxlift.data_pipelines.preprocess.prepare import prepare_volume
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.readers.identity import identify_image
from voxlift.data_pipelines.volume import VolumeError

FORMAT = 3  # raise when the same settings would give other voxels than an earlier version of the code
SHOWN = 10


@dataclass(frozen=True)
class CachedVolumes:
    """Where each record's prepared voxels lie; `files[i]` is None where record i could not be read.

    Every file holds one volume of `shape` (depth, height, width, channels), C order, in `dtype`.
    """

    files: tuple[Path | None, ...]
    shape: Shape
    dtype: str
    problems: tuple[str, ...]


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
    max_gb: float = 20.0,
    workers: int = 0,
    advance: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = lambda _: None,
) -> CachedVolumes:
    """Prepare every record once and say where the results lie.

    Args:
        images: per record its files, one per channel.
        settings: the preprocessing; its shape is that of every volume.
        folder: the cache, shared by runs.
        max_gb: how large this data set may become there (10^9 bytes).
        workers: threads; 0 means one per CPU. Reading and resampling release Python's lock.
        advance: called once per record, from any thread.
        say: is told the size before anything is written.

    Returns:
        One file per record, and a sentence per record that could not be prepared.

    Raises:
        VolumeError: the data set would not fit, or no record can be read.
    """
    keys = [_key(paths, settings) for paths in images]
    kept = folder / f"{hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:32]}.json"
    form, first = recall_form(kept), None
    if form is None:
        form, first = _learn_form(images, settings)
    fill = partial(_fill, images, keys, settings, folder=folder, max_gb=max_gb, workers=workers, say=say)
    files, outcomes = fill(form=form, first=first, advance=advance)
    while (needed := _widest(form, outcomes)) != form.dtype:
        # A volume does not fit into the first one's type: all are stored in the type that holds it.
        form = replace(form, dtype=needed)
        files, outcomes = fill(form=form, first=None, advance=lambda: None)  # all are counted already
    if recall_form(kept) != form:  # a complete cache may be read-only
        _write_whole(kept, form_text(form).encode())
    return CachedVolumes(
        files=tuple(None if outcome.problem else file for file, outcome in zip(files, outcomes, strict=True)),
        shape=form.shape,
        dtype=form.dtype,
        problems=tuple(outcome.problem for outcome in outcomes if outcome.problem),
    )


def explain_problems(problems: Sequence[str], *, is_any_left: bool = True) -> str:
    """Returns the bad files of a data set as one message: the first ten, and the count of the rest.

    Args:
        problems: One sentence a file.
        is_any_left: Whether there are others, with which one could go on.
    """
    shown = "\n".join(f"  {problem}" for problem in problems[:SHOWN])
    rest = f"\n  ... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    way_out = "Mend or remove them, or leave them out with data.on_bad_file=skip."
    if not is_any_left:
        way_out = "No other is left: mend them, or the settings that they do not fit."
    return f"{len(problems)} image(s) cannot be used:\n{shown}{rest}\n{way_out}"


def _fill(
    images: Sequence[tuple[Path, ...]],
    keys: Sequence[str],
    settings: Preprocess,
    *,
    form: CacheFormat,
    first: tuple[int, NDArray[np.float32]] | None,
    folder: Path,
    max_gb: float,
    workers: int,
    advance: Callable[[], None],
    say: Callable[[str], None],
) -> tuple[list[Path], list[_Outcome]]:
    """One pass over all records, once the size was said and fits: where each lies, what came of it."""
    files = [folder / f"{key}.{form.dtype}" for key in keys]
    say(say_room(files, form, folder=folder))
    check_room(files, form, folder=folder, max_gb=max_gb)
    _make_folder(folder)
    if first is not None:
        _write_voxels(files[first[0]], first[1], form.dtype)

    def prepare(paths: tuple[Path, ...], target: Path) -> _Outcome:
        outcome = _prepare_one(paths, target, settings=settings, form=form)
        advance()
        return outcome

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        return files, list(pool.map(prepare, images, files))


def _widest(form: CacheFormat, outcomes: Sequence[_Outcome]) -> str:
    dtype = form.dtype
    for outcome in outcomes:
        dtype = wider(dtype, outcome.dtype or dtype)
    return dtype


def _learn_form(
    images: Sequence[tuple[Path, ...]], settings: Preprocess
) -> tuple[CacheFormat, tuple[int, NDArray[np.float32]]]:
    """The form that the first readable record gives, and that record's index and voxels.

    Only an image tells its channels, its native grid and what its numbers are.

    Raises:
        VolumeError: no record can be read.
    """
    problems = []
    for index, paths in enumerate(images):
        try:
            voxels = _prepare(paths, settings)
        except (VolumeError, OSError) as error:
            problems.append(str(error))
            continue
        depth, height, width, channels = voxels.shape
        return CacheFormat((depth, height, width, channels), choose_dtype(voxels, settings)), (index, voxels)
    raise VolumeError(explain_problems(problems, is_any_left=False))


def _prepare(paths: tuple[Path, ...], settings: Preprocess) -> NDArray[np.float32]:
    return to_tensor_axes(prepare_volume(paths, settings).voxels)


def _prepare_one(
    paths: tuple[Path, ...], target: Path, *, settings: Preprocess, form: CacheFormat
) -> _Outcome:
    """Write one record's voxels unless they are there."""
    if target.exists() and target.stat().st_size == form.bytes:
        return _Outcome()
    try:
        voxels = _prepare(paths, settings)
    except (VolumeError, OSError) as error:
        return _Outcome(str(error))
    if voxels.shape != form.shape:
        return _Outcome(
            f"{paths[0]}: expected {spoken_shape(form.shape)} voxels as in the first image, found "
            f"{spoken_shape(voxels.shape)}; set preprocess.shape and preprocess.spacing so that all share "
            "a grid"
        )
    needed = wider(form.dtype, choose_dtype(voxels, settings))
    _write_voxels(target.with_suffix(f".{needed}"), voxels, needed)
    return _Outcome(dtype=needed)


def _write_voxels(target: Path, voxels: NDArray[np.float32], dtype: str) -> None:
    _write_whole(target, np.ascontiguousarray(voxels, dtype).data)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VolumeError(_unwritable(folder, error)) from error


def _unwritable(folder: Path, error: OSError) -> str:
    return (
        f"cache.folder={folder}: prepared volumes cannot be written there ({error.strerror or error}). "
        "Choose another cache.folder."
    )


def _write_whole(target: Path, content: bytes | memoryview) -> None:
    try:
        with atomic_write(target) as place:
            place.write_bytes(content)
    except OSError as error:
        raise VolumeError(_unwritable(target.parent, error)) from error


def _key(paths: tuple[Path, ...], settings: Preprocess) -> str:
    facts = {
        "format": FORMAT,
        "settings": dataclasses.asdict(settings),
        "files": [identify_image(path) for path in paths],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]
