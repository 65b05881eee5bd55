"""A cohort: subjects with labels, a split each, and prepared volumes on disk.

All errors in the user's data are reported here, without TensorFlow and before the first epoch.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import (
    SPLIT_NAMES,
    CacheSettings,
    SplitSettings,
    TrainSettings,
)
from voxlift.app.data.columns import JoinedColumns
from voxlift.app.data.sources import build_preprocess, load_subjects
from voxlift.app.progress import console, counted_bar, is_brief, print_line, progress_bar
from voxlift.app.tasks.base import Head, Task, find_task, task_of
from voxlift.data_pipelines.cache.fill import CachedVolumes, explain_problems, fill_cache
from voxlift.data_pipelines.cache.format import PreparedVolumes, VolumeMetadata, load_metadata
from voxlift.data_pipelines.errors import ManifestError, list_some
from voxlift.data_pipelines.parallel import Mapper
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.tables.manifest import Manifest, Record
from voxlift.data_pipelines.tables.rows import CALIBRATION
from voxlift.data_pipelines.tables.splits import (
    assign_splits,
    group_by_site,
    keep_for_calibration,
    keep_training_fraction,
    leave_site_out,
    read_sites,
    select_records,
)
from voxlift.data_pipelines.tables.subjects import refuse_leaks
from voxlift.data_pipelines.volume import VolumeError

log = logging.getLogger("voxlift")

FEW_SUBJECTS = 10  # of a class in a split, below which the table of splits is worth a look


@dataclass(frozen=True)
class Cohort:
    """Records that can be used, in manifest order, each with its split and its prepared file.

    Attributes:
        records: The records.
        classes: Names of the outputs: of the classes in index order, of the findings, or of the number.
        splits: One per record: `train`, `val`, `test` or `calibration`.
        files: One prepared file per record: raw voxels [D, H, W, C] in C order.
        shape: Of each prepared volume, (depth, height, width, channels).
        dtype: Of the stored voxels.
        preprocess: The preprocessing that made them.
        left_out: One row per bad file that was skipped: subject, image, reason.
        task: What is predicted.
        columns: Columns of the table, for a network that takes them beside the image; else None.
    """

    records: tuple[Record, ...]
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    files: tuple[Path, ...]
    shape: tuple[int, int, int, int]
    dtype: str
    preprocess: Preprocess
    left_out: tuple[dict[str, str], ...] = ()
    task: Task = field(default_factory=lambda: find_task("classes"))
    columns: JoinedColumns | None = field(default=None, compare=False)

    @property
    def present(self) -> tuple[str, ...]:
        """Return the splits that hold records, training first."""
        return tuple(split for split in (*SPLIT_NAMES, CALIBRATION) if split in self.splits)

    def indices(self, split: str) -> NDArray[np.int64]:
        """Return the positions of one split's records."""
        return np.flatnonzero(np.array(self.splits) == split).astype(np.int64)

    def labels(self, split: str) -> NDArray[Any]:
        """Return the labels of one split's records: int64 [N] class indices, or float64 [N, T] targets."""
        return self.task.labels([self.records[i] for i in self.indices(split)])

    def head(self) -> Head:
        """Return the head of a network for this cohort, with what is known from its training subjects."""
        return self.task.plan_head(self.classes, self.labels("train"))

    def prepared(self, split: str) -> PreparedVolumes:
        """Return the prepared volumes of one split's records."""
        indices = self.indices(split)
        columns = None if self.columns is None else self.columns.features[indices]
        return PreparedVolumes(tuple(self.files[i] for i in indices), self.shape, self.dtype, columns)

    def load_metadata(self, split: str | None = None) -> list[VolumeMetadata]:
        """Return the metadata of one split's records, or of all.

        The cache holds it; images are decoded only for entries that an earlier version prepared.

        Args:
            split: `train`, `val` or `test`; None for all records.
        """
        indices = range(len(self.records)) if split is None else self.indices(split)
        volumes = PreparedVolumes(tuple(self.files[i] for i in indices), self.shape, self.dtype)
        with counted_bar("Reading image metadata") as count:
            images = [self.records[i].images for i in indices]
            return load_metadata(images, volumes, self.preprocess, progress=count)


def gather_cohort(settings: TrainSettings) -> Cohort:
    """Find the subjects, split them, prepare every volume once, and refuse leaks.

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
    manifest, splits = list_subjects(settings)
    print_splits(manifest, splits, choice=settings.splits, is_verbose=settings.preflight.verbose)
    return manifest, splits


def list_subjects(settings: TrainSettings) -> tuple[Manifest, tuple[str, ...]]:
    """Return the records of a training, with a split for each, and print nothing."""
    manifest = exclude_outer_fold(load_subjects(settings.data, task_of(settings)), settings)
    splits = split_subjects(manifest, settings)
    fraction = settings.splits.train_fraction
    return keep_training_fraction(manifest, splits, fraction=fraction, seed=settings.seed)


def prepare_subjects(manifest: Manifest, splits: Sequence[str], *, settings: TrainSettings) -> Cohort:
    """Prepare every volume once, and refuse subjects or voxels that are in two splits.

    Args:
        manifest: The records.
        splits: One per record.
        settings: Preprocessing, cache and what happens with bad files.

    Raises:
        ManifestError, VolumeError: What is wrong with the images, all problems of one kind together.
    """
    refuse_leaks(manifest, splits)
    cohort = prepare_cohort(manifest.records, manifest.classes, splits, settings=settings)
    pairs = zip(cohort.load_metadata(), cohort.records, strict=True)
    hashes = [metadata.combine_hashes(record.images) for metadata, record in pairs]
    refuse_leaks(replace(manifest, records=cohort.records), cohort.splits, hashes=hashes)
    return cohort


def prepare_cohort(
    records: Sequence[Record], classes: tuple[str, ...], splits: Sequence[str], *, settings: TrainSettings
) -> Cohort:
    """Prepare the records' volumes and keep those that can be used.

    Args:
        records: The records.
        classes: Class names in index order.
        splits: One per record.
        settings: Preprocessing, cache and what happens with bad files.

    Raises:
        VolumeError: Files cannot be used and `data.on_bad_file` is `stop`, or no training image of a class is
            left.
    """
    preprocess = build_preprocess(settings.preprocess, settings.data)
    cached = prepare_records(records, preprocess, settings.cache)
    kept = [i for i, file in enumerate(cached.files) if file is not None]
    if cached.problems and (settings.data.on_bad_file == "stop" or not kept):
        raise VolumeError(explain_problems(cached.problems, is_any_left=bool(kept)))
    task = task_of(settings)
    if "train" in splits and cached.problems:
        trained = task.labels([records[i] for i in kept if splits[i] == "train"])
        _refuse_lost(task.find_lost(classes, trained), cached.problems)
    return Cohort(
        records=tuple(records[i] for i in kept),
        classes=classes,
        splits=tuple(splits[i] for i in kept),
        files=tuple(file for file in cached.files if file is not None),
        shape=cached.shape,
        dtype=cached.dtype,
        preprocess=preprocess,
        left_out=_left_out_rows(records, cached, splits),
        task=task,
    )


def _refuse_lost(lost: Sequence[str], problems: Sequence[str]) -> None:
    """Raise an error if bad files have left nothing to learn a class, a finding or the number from."""
    if lost:
        raise VolumeError(
            f"Without the bad files no training image is left of {list_some(lost)}:\n"
            f"{explain_problems(problems, is_any_left=True)}"
        )


def prepare_records(
    records: Sequence[Record],
    preprocess: Preprocess,
    cache: CacheSettings,
    mapper: Mapper | None = None,
) -> CachedVolumes:
    """Prepare every volume that is not in the cache yet.

    Args:
        records: The records.
        preprocess: The preprocessing.
        cache: The folder of prepared volumes, and how large it may be.
        mapper: Prepares them in other processes; None: by threads.

    Raises:
        VolumeError: They would not fit, or none can be read.
    """
    with progress_bar("Preparing volumes", len(records)) as advance:
        return fill_cache(
            [record.images for record in records],
            preprocess,
            folder=Path(cache.folder),
            regions=[record.region for record in records],
            max_gb=cache.max_gb,
            workers=cache.workers,
            mapper=mapper,
            advance=advance,
            report=log.info,
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
        {"subject": record.subject, "image": record.item, "reason": problem}
        for record, problem in zip(bad, cached.problems, strict=True)
    )


def exclude_outer_fold(manifest: Manifest, settings: TrainSettings) -> Manifest:
    """Return the records outside the outer fold's test split, for nested cross-validation.

    The outer test split is that of `splits.folds=splits.outer_folds` with the same seed: a choice made on
    inner folds can thus be tested by a plain cross-validation on subjects that no inner training saw.

    Args:
        manifest: All records.
        settings: `splits.outer_folds` (0: all records are kept), `splits.outer_fold` and the seed.
    """
    choice = settings.splits
    if not choice.outer_folds:
        return manifest
    outer = assign_splits(
        manifest, val=0.0, test=0.0, seed=settings.seed, folds=choice.outer_folds, fold=choice.outer_fold
    )
    kept = select_records(manifest, outer)
    log.info(
        "Outer fold %d of %d: its %d volumes are excluded",
        choice.outer_fold,
        choice.outer_folds,
        len(manifest.records) - len(kept.records),
    )
    return kept


def split_subjects(manifest: Manifest, settings: TrainSettings) -> tuple[str, ...]:
    """Return one split per record, by subject and stratified; the table's split column takes precedence."""
    choice = settings.splits
    grouped = manifest
    if column := choice.by or choice.leave_out:
        _refuse_own_splits(manifest, column)
    if choice.by is not None:
        grouped = group_by_site(manifest, read_sites(manifest, choice.by, setting="splits.by"))
    if choice.leave_out is not None:
        sites = read_sites(manifest, choice.leave_out, setting="splits.leave_out")
        splits = leave_site_out(
            manifest,
            sites,
            fold=choice.fold,
            val=choice.val,
            seed=settings.seed,
            by_site=choice.by is not None,
        )
    else:
        splits = assign_splits(
            grouped,
            val=choice.val,
            test=choice.test,
            seed=settings.seed,
            folds=choice.folds,
            fold=choice.fold,
        )
    return keep_for_calibration(grouped, splits, fraction=choice.calibration, seed=settings.seed)


def count_folds(settings: TrainSettings) -> int:
    """Return how many folds a comparison runs: those asked for, one per site, or 1 without folds.

    Raises:
        ManifestError: The table has no sites.
    """
    column = settings.splits.leave_out
    if column is None:
        return max(1, settings.splits.folds)
    manifest = load_subjects(settings.data, task_of(settings))
    return len(set(read_sites(manifest, column, setting="splits.leave_out")))


def _refuse_own_splits(manifest: Manifest, column: str) -> None:
    if any(record.split for record in manifest.records):
        raise ManifestError(
            f"{manifest.source} has a split column, and splits.by or splits.leave_out={column} asks for "
            "another split. Remove one of them."
        )


def print_splits(
    manifest: Manifest, splits: Sequence[str], *, choice: SplitSettings, is_verbose: bool = False
) -> None:
    """Print what is in each split: in a line, or in a table where few subjects are worth a look.

    The table has the subjects of each class or with each finding, or the range of the number.

    Args:
        manifest: The records.
        splits: One per record.
        choice: The fold, if any, which the title names.
        is_verbose: Whether to print the table in any case.
    """
    from rich.table import Table

    fold = f", splits.fold={choice.fold} of 0 to {choice.folds - 1}" if choice.folds else ""
    fold = f", splits.fold={choice.fold} by {choice.leave_out}" if choice.leave_out else fold
    unit = choice.by or "subject"
    task = find_task(manifest.target)
    fewest, of_each = task.fewest_subjects(manifest, splits)
    if is_brief() or not (is_verbose or fewest < FEW_SUBJECTS):
        counts = Counter(splits)
        volumes = ", ".join(f"{name} {counts[name]}" for name in (*SPLIT_NAMES, CALIBRATION) if counts[name])
        least = "" if is_brief() else f", at least {fewest} subjects{of_each} in each"
        print_line(f"Splits, by {unit}{fold}: {volumes} volumes{least}")
        return
    heading, *rows = task.split_rows(manifest, splits)
    table = Table(heading[0], title=f"Splits, by {unit}{fold}")
    for split in heading[1:]:
        table.add_column(split, justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
