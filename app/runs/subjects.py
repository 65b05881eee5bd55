"""A cohort in a run's folder: `splits.csv` and `left_out.csv`, from which it is opened again."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.data.cohort import Cohort, gather_cohort, prepare_cohort
from voxlift.app.files import read_rows, write_json, write_rows
from voxlift.app.runs.configuration import save_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.input_ranges import write_training_range
from voxlift.app.runtime.environment import describe_environment
from voxlift.app.runtime.precision import Precision
from voxlift.data_pipelines.audit.sanity import remarks, span_of
from voxlift.data_pipelines.cache.ranges import Sketch
from voxlift.data_pipelines.tables.images import join_images, split_images
from voxlift.data_pipelines.tables.manifest import Record


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


def reopen_subjects(run: RunFolder, settings: TrainSettings) -> Cohort:
    """All splits of a training's cohort in its own order, whatever has become of the table since.

    Args:
        run: a folder in which a training began.
        settings: the run's own, read from its folder.

    Raises:
        SettingsError: a file that the run learned from can no longer be used.
    """
    if not run.splits.exists():  # killed before it was written: nothing has been learned yet
        return gather_cohort(settings)
    rows, classes = read_rows(run.splits), tuple(settings.data.classes)
    records, splits = [_record_of(row, classes) for row in rows], [row["split"] for row in rows]
    cohort = prepare_cohort(records, classes, splits, settings=settings)
    if cohort.left_out:
        reasons = [row["reason"] for row in cohort.left_out]
        raise SettingsError(
            f"resume={run.path}: expected the files that the run began with; these can no longer be used:\n"
            + "\n".join(reasons)
        )
    return cohort


def write_cohort(cohort: Cohort, run: RunFolder) -> None:
    """Write `splits.csv`, and `left_out.csv` where bad files were skipped."""
    pairs = zip(cohort.records, cohort.splits, strict=True)
    write_rows(run.splits, [_split_row(record, split, cohort.classes) for record, split in pairs])
    if cohort.left_out:
        write_rows(run.left_out, cohort.left_out)


def _split_row(record: Record, split: str, classes: tuple[str, ...]) -> dict[str, str | int]:
    label = classes[record.label]
    return {
        "subject": record.subject,
        "image": join_images(record.images),
        "label": label,
        "split": split,
        "row": record.row,
    }


def _record_of(row: dict[str, str], classes: tuple[str, ...]) -> Record:
    """The inverse of `_split_row`."""
    return Record(
        row["subject"], split_images(row["image"]), classes.index(row["label"]), row["split"], int(row["row"])
    )


def describe_run(run: RunFolder, settings: TrainSettings, *, cohort: Cohort, precision: Precision) -> None:
    """Write the settings, the environment, the range of the training voxels and the splits; warn of images.

    The splits come last: they tell a resumed training that the rest is there.
    """
    save_settings(settings, run)
    write_json(run.environment, describe_environment(precision))
    warn_of_images(cohort, write_training_range(cohort, run))
    write_cohort(cohort, run)


log = logging.getLogger("voxlift")

LOOKED_AT = 24  # volumes, spread over the table: enough for a warning, read in no time


def warn_of_images(cohort: Cohort, sketches: Sequence[Sketch]) -> None:
    """Log what a person would see at a glance.

    Args:
        cohort: with at least one training volume.
        sketches: of the training records.
    """
    train = cohort.indices("train")
    chosen = train[np.unique(np.linspace(0, len(train) - 1, LOOKED_AT).astype(int))]
    spans = [span_of(np.fromfile(cohort.files[index], cohort.dtype)) for index in chosen]
    for sentence in remarks(spans, sketches, cohort.preprocess, cohort.shape):
        log.warning(sentence)
