"""A cohort: subjects with labels, a split each, and prepared volumes on disk.

Everything that can be wrong with the user's data is met here, before TensorFlow is imported and before the
first epoch.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import (
    SPLIT_NAMES,
    DataSettings,
    PreprocessSettings,
    SettingsError,
    SplitSettings,
    TrainSettings,
)
from voxlift.app.data.sources import load_subjects
from voxlift.app.progress import console, counted_bar, progress_bar
from voxlift.data_pipelines.audit.facts import read_facts
from voxlift.data_pipelines.cache.fill import CachedVolumes, explain_problems, fill_cache
from voxlift.data_pipelines.cache.format import PreparedVolumes
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.tables.manifest import join_images
from voxlift.data_pipelines.tables.leaks import hash_records, refuse_leaks
from voxlift.data_pipelines.tables.manifest import Manifest, Record
from voxlift.data_pipelines.tables.splits import SplitCount, assign_splits, select_records, split_table
from voxlift.data_pipelines.volume import VolumeError

log = logging.getLogger("voxlift")


@dataclass(frozen=True)
class Cohort:
    """Records that can be used, in manifest order, each with its split and its prepared file."""

    records: tuple[Record, ...]
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    files: tuple[Path, ...]
    shape: tuple[int, int, int, int]  # depth, height, width, channels
    dtype: str
    preprocess: Preprocess
    left_out: tuple[dict[str, str], ...] = ()  # bad files that were skipped, with the reason

    @property
    def present(self) -> tuple[str, ...]:
        """The splits that hold somebody, training first."""
        return tuple(split for split in SPLIT_NAMES if split in self.splits)

    def indices(self, split: str) -> NDArray[np.int64]:
        """Positions of one split's records."""
        return np.flatnonzero(np.array(self.splits) == split).astype(np.int64)

    def labels(self, split: str) -> NDArray[np.int64]:
        """Class indices of one split's records."""
        return np.array([self.records[i].label for i in self.indices(split)], np.int64)

    def prepared(self, split: str) -> PreparedVolumes:
        """Prepared volumes of one split's records."""
        return PreparedVolumes(tuple(self.files[i] for i in self.indices(split)), self.shape, self.dtype)


def gather_cohort(settings: TrainSettings) -> Cohort:
    """Find the subjects, split them, refuse leaks, and prepare every volume once.

    Raises:
        ManifestError, VolumeError, SettingsError: What is wrong with the data, all problems of one kind
            together.
    """
    return prepare_subjects(*find_subjects(settings), settings=settings)


def find_subjects(settings: TrainSettings) -> tuple[Manifest, tuple[str, ...]]:
    """Return the records that the data settings name, with a split for each; no image is read.

    Raises:
        ManifestError, SettingsError: What is wrong with the table or the splits.
    """
    build_preprocess(settings.preprocess, settings.data)  # wrong settings are refused before any file is read
    manifest = exclude_outer_fold(load_subjects(settings.data), settings)
    splits = split_subjects(manifest, settings)
    print_splits(manifest, splits, choice=settings.splits)
    return manifest, splits


def prepare_subjects(manifest: Manifest, splits: Sequence[str], *, settings: TrainSettings) -> Cohort:
    """Refuse leaks between the splits, and prepare every volume once.

    Raises:
        ManifestError, VolumeError: What is wrong with the images, all problems of one kind together.
    """
    refuse_shared_voxels(manifest, splits, settings=settings)
    return prepare_cohort(manifest.records, manifest.classes, splits, settings=settings)


def prepare_cohort(
    records: Sequence[Record], classes: tuple[str, ...], splits: Sequence[str], *, settings: TrainSettings
) -> Cohort:
    """Prepare the records' volumes and keep those that can be used.

    Raises:
        VolumeError: files cannot be used and are not to be skipped, or none is left.
    """
    preprocess = build_preprocess(settings.preprocess, settings.data)
    cached = _prepare(records, preprocess, settings)
    kept = [i for i, file in enumerate(cached.files) if file is not None]
    if cached.problems and (settings.data.on_bad_file == "stop" or not kept):
        raise VolumeError(explain_problems(cached.problems, is_any_left=bool(kept)))
    return Cohort(
        records=tuple(records[i] for i in kept),
        classes=classes,
        splits=tuple(splits[i] for i in kept),
        files=tuple(file for file in cached.files if file is not None),
        shape=cached.shape,
        dtype=cached.dtype,
        preprocess=preprocess,
        left_out=_left_out_rows(records, cached, splits),
    )


def build_preprocess(settings: PreprocessSettings, data: DataSettings) -> Preprocess:
    """The preprocessing value of the settings.

    Raises:
        SettingsError: settings that make no sense together.
    """
    values = {**asdict(settings), "time_axis": data.time_axis}
    del values["name"]
    values["spacing"] = None if settings.spacing == "native" else settings.spacing
    try:
        return Preprocess(**values)
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _prepare(records: Sequence[Record], preprocess: Preprocess, settings: TrainSettings) -> CachedVolumes:
    cache = settings.cache
    with progress_bar("Preparing volumes", len(records)) as advance:
        return fill_cache(
            [record.images for record in records],
            preprocess,
            folder=Path(cache.folder),
            max_gb=cache.max_gb,
            workers=cache.workers,
            advance=advance,
            say=log.info,
        )


def _left_out_rows(
    records: Sequence[Record], cached: CachedVolumes, splits: Sequence[str]
) -> tuple[dict[str, str], ...]:
    absent = [i for i, file in enumerate(cached.files) if file is None]
    bad = [records[i] for i in absent]
    if bad:
        counts = ", ".join(f"{split} {count}" for split, count in Counter(splits[i] for i in absent).items())
        log.info("%d bad file(s) left out (%s); left_out.csv in the run folder names them", len(bad), counts)
    return tuple(
        {"subject": record.subject, "image": join_images(record.images), "reason": problem}
        for record, problem in zip(bad, cached.problems, strict=True)
    )


def exclude_outer_fold(manifest: Manifest, settings: TrainSettings) -> Manifest:
    """The records outside the outer fold's test part, by which nested cross-validation is composed.

    The outer test part is that of `splits.folds=splits.outer_folds` with the same seed: so a choice made on
    inner folds is tested by a plain cross-validation on subjects that no inner training ever saw.
    """
    choice = settings.splits
    if not choice.outer_folds:
        return manifest
    outer = assign_splits(
        manifest, val=0.0, test=0.0, seed=settings.seed, folds=choice.outer_folds, fold=choice.outer_fold
    )
    kept = select_records(manifest, outer)
    log.info(
        "Outer fold %d of %d: its %d volumes are set aside",
        choice.outer_fold,
        choice.outer_folds,
        len(manifest.records) - len(kept.records),
    )
    return kept


def split_subjects(manifest: Manifest, settings: TrainSettings) -> tuple[str, ...]:
    """One split name per record, by subject and stratified; the table's own column wins."""
    choice = settings.splits
    return assign_splits(
        manifest, val=choice.val, test=choice.test, seed=settings.seed, folds=choice.folds, fold=choice.fold
    )


def refuse_shared_voxels(manifest: Manifest, splits: Sequence[str], *, settings: TrainSettings) -> None:
    """Pass when no subject and no voxels are in two splits; hashes are kept in the cache's folder.

    Raises:
        ManifestError: with the pairs of files.
    """
    time_axis, prefer = settings.data.time_axis, settings.preprocess.prefer
    with counted_bar("Comparing voxels") as count:
        hashes = hash_records(
            manifest.records,
            hash_file=partial(_hash_picture, time_axis=time_axis, prefer=prefer),
            # Both settings change what is read from the same file.
            cache=Path(settings.cache.folder) / f"hashes-{time_axis}-{prefer}.json",
            workers=settings.cache.workers or os.cpu_count() or 1,
            progress=count,
        )
    refuse_leaks(manifest, splits, hashes=hashes)


def print_splits(manifest: Manifest, splits: Sequence[str], *, choice: SplitSettings) -> None:
    """Print how many subjects of each class train, validate and test; and volumes where they are more.

    Args:
        manifest: Whose records they are.
        splits: One for each record.
        choice: Whether this is a fold of several, which the title then names.
    """
    fold = f", splits.fold={choice.fold} of 0 to {choice.folds - 1}" if choice.folds else ""
    from rich.table import Table

    counts = split_table(manifest, splits)
    table = Table("class", title=f"Splits, by subject{fold}")
    for split in dict.fromkeys(count.split for count in counts):
        table.add_column(split, justify="right")
    for name in manifest.classes:
        table.add_row(name, *[_spoken_count(count) for count in counts if count.class_name == name])
    console.print(table)


def _spoken_count(count: SplitCount) -> str:
    more = f" ({count.volumes} volumes)" if count.volumes != count.subjects else ""
    return f"{count.subjects}{more}"


def _hash_picture(path: Path, *, time_axis: str, prefer: str) -> str | None:
    """The hash of a file's voxels; None where it cannot be read, which preparing it will report."""
    facts = read_facts(path, time_axis=time_axis, prefer=prefer)
    if facts.error:
        return None
    # Two blank images are alike without being copies of one.
    return f"blank {path}" if facts.minimum == facts.maximum else facts.voxel_hash
