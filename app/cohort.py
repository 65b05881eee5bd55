"""From the data settings to a cohort: subjects with labels, a split each, and prepared volumes on disk.

Everything that can be wrong with the user's data is met here, before TensorFlow is imported and before the
first epoch.
"""

from __future__ import annotations

import csv
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.files import read_rows, write_rows
from app.progress import console, counted_bar, progress_bar
from app.runs import RunFolder
from app.settings import SPLIT_NAMES, DataSettings, PreprocessSettings, SettingsError, TrainSettings
from data_pipelines.audit.facts import read_facts
from data_pipelines.cache import CachedVolumes, explain_problems, fill_cache
from data_pipelines.leaks import hash_records, refuse_leaks
from data_pipelines.manifest import Manifest, Record, TableOptions, load_manifest
from data_pipelines.prepared import PreparedVolumes
from data_pipelines.preprocess_settings import Preprocess
from data_pipelines.splits import assign_splits, select_records, split_table
from data_pipelines.volume import VolumeError

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
        ManifestError, VolumeError, SettingsError: what is wrong with the data, all problems of one kind
        together.
    """
    manifest = set_outer_fold_aside(load_subjects(settings.data), settings)
    splits = split_subjects(manifest, settings)
    say_splits(manifest, splits)
    refuse_shared_voxels(manifest, splits, settings=settings)
    return prepare_cohort(manifest.records, manifest.classes, splits, settings=settings)


def reopen_cohort(settings: TrainSettings, run: RunFolder, *, split: str) -> Cohort:
    """One split of a finished run's cohort, from its folder: the same subjects, prepared the same way.

    Args:
        settings: the run's own, read from its folder.
        run: the folder.
        split: `train`, `val` or `test`.

    Raises:
        SettingsError: the split holds nobody.
    """
    rows = [row for row in read_rows(run.splits) if row["split"] == split]
    if not rows:
        raise SettingsError(f"{run.splits}: expected subjects in the split {split}; it has none.")
    classes = tuple(settings.data.classes)
    records = tuple(_record_of(row, classes) for row in rows)
    return prepare_cohort(records, classes, (split,) * len(records), settings=settings)


def reopen_all(settings: TrainSettings, run: RunFolder) -> tuple[Cohort, list[str]]:
    """All splits of a run's cohort, from its folder; and the reasons why files cannot be used any more."""
    rows, classes = read_rows(run.splits), tuple(settings.data.classes)
    records, splits = [_record_of(row, classes) for row in rows], [row["split"] for row in rows]
    cohort = prepare_cohort(records, classes, splits, settings=settings)
    return cohort, [row["reason"] for row in cohort.left_out]


def write_cohort(cohort: Cohort, run: RunFolder) -> None:
    """Write `splits.csv`, and `left_out.csv` where bad files were skipped."""
    pairs = zip(cohort.records, cohort.splits, strict=True)
    write_rows(run.splits, [_split_row(record, split, cohort.classes) for record, split in pairs])
    if cohort.left_out:
        write_rows(run.left_out, cohort.left_out)


def prepare_cohort(
    records: Sequence[Record], classes: tuple[str, ...], splits: Sequence[str], *, settings: TrainSettings
) -> Cohort:
    """Prepare the records' volumes and keep those that can be used."""
    preprocess = build_preprocess(settings.preprocess, settings.data)
    cached = _prepare(records, preprocess, settings)
    kept = [i for i, file in enumerate(cached.files) if file is not None]
    if cached.problems and (settings.data.on_bad_file == "stop" or not kept):
        raise VolumeError(explain_problems(cached.problems))
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


def load_subjects(data: DataSettings) -> Manifest:
    """The manifest that the data settings name; phantom and MedMNIST files are written on first use."""
    return _load_table(locate_table(data))


def locate_table(data: DataSettings) -> DataSettings:
    """The settings with their table; that of the phantom and of MedMNIST is written on first use."""
    if data.name == "manifest":
        return data
    table, classes = _write_phantom(data) if data.name == "phantom" else _write_medmnist(data)
    return _with_written_columns(data, table, classes)


def set_outer_fold_aside(manifest: Manifest, settings: TrainSettings) -> Manifest:
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


def say_splits(manifest: Manifest, splits: Sequence[str]) -> None:
    """Print how many subjects and volumes of each class train, validate and test."""
    from rich.table import Table

    table = Table("split", "class", title="Splits, by subject")
    table.add_column("subjects", justify="right")
    table.add_column("volumes", justify="right")
    for row in split_table(manifest, splits):
        table.add_row(row.split, row.class_name, str(row.subjects), str(row.volumes))
    console.print(table)


def _hash_picture(path: Path, *, time_axis: str, prefer: str) -> str | None:
    """The hash of a file's voxels; None where it cannot be read, which preparing it will report."""
    facts = read_facts(path, time_axis=time_axis, prefer=prefer)
    if facts.error:
        return None
    # Two blank images are alike without being copies of one.
    return f"blank {path}" if facts.minimum == facts.maximum else facts.voxel_hash


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
        {"subject": record.subject, "image": _joined(record.images), "reason": problem}
        for record, problem in zip(bad, cached.problems, strict=True)
    )


def _split_row(record: Record, split: str, classes: tuple[str, ...]) -> dict[str, str | int]:
    label = classes[record.label]
    return {
        "subject": record.subject,
        "image": _joined(record.images),
        "label": label,
        "split": split,
        "row": record.row,
    }


def _record_of(row: dict[str, str], classes: tuple[str, ...]) -> Record:
    """The inverse of `_split_row`."""
    images = tuple(Path(image) for image in row["image"].split("|"))
    return Record(row["subject"], images, classes.index(row["label"]), row["split"], int(row["row"]))


def _joined(images: Sequence[Path]) -> str:
    return "|".join(str(image) for image in images)


def table_options(data: DataSettings) -> TableOptions:
    """What the data settings say of the table; an absent file is a bad file, to stop at or to skip."""
    return TableOptions(
        root=data.root or None,
        image_column=data.image_column,
        image_columns=tuple(data.image_columns),
        label_column=data.label_column,
        subject_column=data.subject_column,
        split_column=data.split_column,
        classes=tuple(data.classes),
        label_bins=tuple(data.label_bins),
        keep_absent=data.on_bad_file == "skip",
    )


def _load_table(data: DataSettings) -> Manifest:
    manifest = load_manifest(str(data.table), table_options(data))
    if manifest.left_out:
        reasons = ", ".join(f"{count} with {reason}" for reason, count in manifest.left_out.items())
        log.info("Rows left out of %s: %s", manifest.source, reasons)
    return manifest


def _write_phantom(data: DataSettings) -> tuple[Path, tuple[str, ...]]:
    """The phantom's table and its classes in index order."""
    from data_pipelines.phantom import PHANTOM_CLASSES, write_phantom

    task, subjects = str(data.task), int(data.subjects or 0)
    with progress_bar(f"Writing phantom {task}", subjects) as advance:
        table = write_phantom(
            data.folder,
            task=task,
            subjects=subjects,
            seed=0,  # of the data set; the run's seed splits and trains
            workers=os.cpu_count() or 1,
            progress=lambda _done, _total: advance(),
        )
    return table, PHANTOM_CLASSES[task]


def _write_medmnist(data: DataSettings) -> tuple[Path, tuple[str, ...]]:
    """The benchmark's table and its classes in index order."""
    from data_pipelines.medmnist import name_classes, write_medmnist

    npz = Path(str(data.npz)).expanduser()
    with console.status(f"Writing {npz.name} as NIfTI files"):
        table = write_medmnist(npz, data.folder, workers=os.cpu_count() or 1)
    with table.open(encoding="utf-8", newline="") as file:
        count = len({row["label"] for row in csv.DictReader(file)})
    return table, name_classes(npz.stem, count)


def _with_written_columns(data: DataSettings, table: Path, classes: tuple[str, ...]) -> DataSettings:
    """The settings of a table that we wrote ourselves; the user's own choice of classes stays."""
    with table.open(encoding="utf-8", newline="") as file:
        has_split = "split" in next(csv.reader(file))
    return replace(
        data,
        table=str(table),
        image_column="file",
        label_column="label",
        subject_column="participant_id",
        split_column="split" if has_split else None,
        classes=list(data.classes or classes),
    )
