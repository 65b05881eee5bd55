"""The cohort of a run: its splits, images and columns, written, read and compared with those of now."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.data.cohort import Cohort, gather_cohort, prepare_cohort
from voxlift.app.data.columns import Cells, ColumnEncoder, apply_encoder, read_cells, read_encoder
from voxlift.app.errors import shorten
from voxlift.app.files import read_json, read_rows, write_json, write_rows
from voxlift.app.runs.configuration import save_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.subjects import read_subjects, saved_name, write_subjects
from voxlift.app.runtime.environment import describe_environment
from voxlift.app.runtime.setup import Precision
from voxlift.app.tasks.base import Task, task_of
from voxlift.data_pipelines.audit.prepared import (
    TrainingRange,
    check_prepared,
    find_training_range,
    value_range,
)
from voxlift.data_pipelines.cache.format import VolumeSummary
from voxlift.data_pipelines.errors import list_some
from voxlift.data_pipelines.files import find_real_path
from voxlift.data_pipelines.preprocess.region import read_mask
from voxlift.data_pipelines.readers.identity import identify_image
from voxlift.data_pipelines.tables.manifest import Manifest, Record, split_images
from voxlift.data_pipelines.tables.regions import read_region, write_region
from voxlift.data_pipelines.tables.subjects import refuse_leaks

log = logging.getLogger("voxlift")

CHECKED_VOLUMES = 24  # spread over the table: enough for a warning, and read quickly


def write_run_setup(run: RunFolder, settings: TrainSettings, *, cohort: Cohort, precision: Precision) -> None:
    """Write settings, environment, range of the training voxels, images and splits; warn of images.

    The splits are written last: a resumed training that finds them can rely on the other files.
    """
    save_settings(settings, run)
    write_json(run.environment, describe_environment(precision))
    warn_about_images(cohort, write_training_range(cohort, run))
    write_images(cohort, run)
    write_subjects(cohort, run, settings)
    write_columns(cohort, run)
    write_cohort(cohort, run)


def write_cohort(cohort: Cohort, run: RunFolder) -> None:
    """Write `left_out.csv` where unusable files were left out, then `splits.csv`."""
    if cohort.left_out:
        write_rows(run.left_out, cohort.left_out)
    pairs = zip(cohort.records, cohort.splits, strict=True)
    write_rows(run.splits, [_row_from_record(record, split, cohort) for record, split in pairs])


def warn_about_images(cohort: Cohort, summaries: Sequence[VolumeSummary]) -> None:
    """Log what is unusual about the prepared training volumes.

    Args:
        cohort: With at least one training volume.
        summaries: Of the training records.
    """
    train = cohort.indices("train")
    chosen = train[np.unique(np.linspace(0, len(train) - 1, CHECKED_VOLUMES).astype(int))]
    ranges = [value_range(np.fromfile(cohort.files[index], cohort.dtype)) for index in chosen]
    for sentence in check_prepared(ranges, summaries, cohort.preprocess, cohort.shape):
        log.warning(sentence)


def reopen_cohort(run: RunFolder, settings: TrainSettings) -> Cohort:
    """Return the cohort of a training with all splits, in its original order, as its folder holds it.

    Args:
        run: Folder in which a training began.
        settings: Its own, read from the folder.

    Raises:
        SettingsError: A file that the run was trained on can no longer be used.
        ManifestError: An image changed, and the same voxels are in two splits now.
    """
    if not run.splits.exists():  # killed before it was written, so nothing has been trained yet
        cohort = gather_cohort(settings)
        if run.slice_model.images.exists():  # its slice stage has been trained, on the same images
            check_images(cohort, run.slice_model)
        return cohort
    rows, task = read_rows(run.splits), task_of(settings)
    classes = task.names(settings.data)
    records, splits = [_record_from_row(row, task, classes) for row in rows], [row["split"] for row in rows]
    cohort = prepare_cohort(records, classes, splits, settings=settings)
    if cohort.left_out:
        reasons = [row["reason"] for row in cohort.left_out]
        raise SettingsError(
            f"resume={run.path}: expected the files that the run was started with; these can no longer be "
            "used:\n" + "\n".join(reasons)
        )
    check_images(cohort, run)
    return reopen_columns(cohort, run, settings)


def reopen_split(settings: TrainSettings, run: RunFolder, *, split: str) -> Cohort:
    """Return one split of a finished run's cohort: the same subjects, prepared the same way.

    Args:
        settings: The run's own, read from its folder.
        run: The folder.
        split: `train`, `val` or `test`.

    Raises:
        SettingsError: The split is empty.
    """
    rows = [row for row in read_rows(run.splits) if row["split"] == split]
    if not rows:
        raise SettingsError(f"{run.splits}: expected subjects in the split {split}; it has none.")
    task = task_of(settings)
    classes = task.names(settings.data)
    records = tuple(_record_from_row(row, task, classes) for row in rows)
    cohort = prepare_cohort(records, classes, (split,) * len(records), settings=settings)
    return reopen_columns(cohort, run, settings)


def _row_from_record(record: Record, split: str, cohort: Cohort) -> dict[str, str | int]:
    return {
        "subject": record.subject,
        "image": record.item,
        **cohort.task.label_cells(record.label, record.targets, cohort.classes),
        "split": split,
        "row": record.row,
        **write_region(record.region),
    }


def _record_from_row(row: dict[str, str], task: Task, names: tuple[str, ...]) -> Record:
    label, targets = task.read_label(row, names)
    region = read_region(row)
    name = f"@{region.name}" if region is not None and region.name else ""
    images = split_images(row["image"].removesuffix(name))
    return Record(row["subject"], images, label, row["split"], int(row["row"]), targets, region)


def write_training_range(cohort: Cohort, run: RunFolder) -> list[VolumeSummary]:
    """Write the ranges of the training split and return the summaries of its volumes.

    Args:
        cohort: With at least one training volume.
        run: The run folder.
    """
    summaries = [one.summary for one in cohort.load_metadata("train")]
    write_json(run.training_range, asdict(find_training_range(summaries)))
    return summaries


def read_training_range(run: RunFolder) -> TrainingRange | None:
    """Return the ranges that a run wrote; None for a run of a version that wrote none.

    Raises:
        SettingsError: The file is damaged.
    """
    if not run.training_range.exists():
        return None
    saved = read_json(run.training_range)
    try:
        return TrainingRange(
            volumes=int(saved["volumes"]),
            spacing=_pairs(saved["spacing"]),
            shape=_pairs(saved["shape"]),
            axcodes=dict(saved["axcodes"]),
            channels=tuple(
                {name: (float(low), float(high)) for name, (low, high) in channel.items()}
                for channel in saved["channels"]
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(
            f"{run.training_range}: expected the ranges that voxlift-train writes ({error}). Remove the file"
            " to predict without warnings about unusual inputs."
        ) from error


def _pairs(values: Any) -> tuple[tuple[float, float], ...]:  # noqa: ANN401 - read from JSON
    return tuple((float(low), float(high)) for low, high in values)


def write_images(cohort: Cohort, run: RunFolder) -> None:
    """Write for each record its files (real path, bytes, modification time) and the hash of its voxels."""
    write_json(
        run.images,
        {
            record.item: {"files": _identify(record), "voxels": digest, **_hash_mask(record, cohort)}
            for record, digest in zip(cohort.records, _hash_voxels(cohort), strict=True)
        },
    )


def check_images(cohort: Cohort, run: RunFolder) -> None:
    """Warn of images that changed since a run began, and repeat the leak check where one did.

    Args:
        cohort: The records of the run, prepared from the files as they are now.
        run: The folder in which the training began.

    Raises:
        ManifestError: The same voxels are in two splits now.
        SettingsError: The file is damaged.
    """
    if not run.images.exists():
        log.info("%s began with a version that recorded no images: changed ones are not noticed.", run.path)
        return
    saved = read_json(run.images)
    cells = [record.item for record in cohort.records]
    changed = [
        index
        for index, record in enumerate(cohort.records)
        if _saved(saved, cells[index], run).get("files") != _identify(record)
    ]
    if not changed:
        return
    hashes = _hash_voxels(cohort)
    others = []
    for index in changed:
        known = _saved(saved, cells[index], run)
        mask = _hash_mask(cohort.records[index], cohort).get("mask")
        if known.get("voxels") != hashes[index] or known.get("mask") != mask:
            others.append(cohort.records[index].images[0])
    _log_changes(len(changed), others)
    if others:
        manifest = Manifest(cohort.records, cohort.classes, {}, run.splits)
        refuse_leaks(manifest, cohort.splits, hashes=hashes)


def _saved(saved: Mapping[str, Any], cell: str, run: RunFolder) -> Mapping[str, Any]:
    """Return what is known of a record; nothing of one that was not there when the run began."""
    known = saved.get(cell, {})
    if not isinstance(known, dict):
        raise SettingsError(
            f"{run.images}: expected the images that voxlift-train writes. Remove the file to resume without"
            " comparing them."
        )
    return known


def _log_changes(changed: int, others: Sequence[Path]) -> None:
    if others:
        log.warning(
            "%d image(s) have other voxels than when this run began; it is resumed with those of now: %s",
            len(others),
            list_some(others),
        )
    else:
        log.info("%d image(s) were written again since this run began, with the same voxels.", changed)


def _identify(record: Record) -> list[list[Any]]:
    mask = None if record.region is None else record.region.mask
    return [
        [str(find_real_path(Path(file))), size, time]
        for image in (*record.images, *(() if mask is None else (mask,)))
        for file, size, time in identify_image(image)
    ]


def _hash_mask(record: Record, cohort: Cohort) -> dict[str, str]:
    """Return the hash of what is inside a record's mask; nothing where no mask is used."""
    if record.region is None or record.region.mask is None or not cohort.preprocess.mask:
        return {}
    return {"mask": read_mask(record.region.mask, cohort.preprocess).digest}


def _hash_voxels(cohort: Cohort) -> list[str]:
    pairs = zip(cohort.load_metadata(), cohort.records, strict=True)
    return [metadata.combine_hashes(record.images) for metadata, record in pairs]


def write_columns(cohort: Cohort, run: RunFolder) -> None:
    """Write the columns as fitted on the training subjects, where the cohort has some."""
    if cohort.columns is not None:
        write_json(run.columns, {"columns": cohort.columns.encoder.as_json()})


def load_joined_encoder(run: RunFolder, settings: TrainSettings) -> ColumnEncoder | None:
    """Return how a run's network takes columns of the table; None where it takes none.

    Raises:
        SettingsError: The file is missing or damaged.
    """
    return load_encoder(run) if settings.model.join_columns else None


def load_encoder(run: RunFolder) -> ColumnEncoder:
    """Return how the model of a run takes columns of the table.

    Raises:
        SettingsError: The file is missing or damaged.
    """
    try:
        return read_encoder(read_json(run.columns)["columns"])
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise SettingsError(
            f"{run.columns}: expected the columns that voxlift-train writes; {shorten(error)}. Restore the "
            "file, or train the run again."
        ) from error


def reopen_columns(cohort: Cohort, run: RunFolder, settings: TrainSettings) -> Cohort:
    """Return a cohort of a run with the columns that its network takes, from the files of the run alone.

    Raises:
        SettingsError: A file is missing or damaged.
    """
    encoder = load_joined_encoder(run, settings)
    if encoder is None:
        return cohort
    saved, items = read_subjects(run, settings), [record.item for record in cohort.records]
    cells: Cells = np.full((len(items), len(encoder.names)), math.nan, object)
    for position, name in enumerate(map(saved_name, encoder.names)):
        saved.read(name, (), setting="model.columns")  # it names the column that is missing
        cells[:, position] = [saved.rows.get(item, {}).get(name, "") for item in items]
    return _with_cells(cohort, encoder, cells)


def join_new_columns(cohort: Cohort, run: RunFolder, settings: TrainSettings) -> Cohort:
    """Return a cohort of other data with the columns that a run's network takes, from the other table.

    Args:
        cohort: Of the other data.
        run: Of the network.
        settings: Of the run, with the other data.

    Raises:
        ManifestError: The table lacks a column.
        SettingsError: The run's file is missing or damaged.
    """
    encoder = load_joined_encoder(run, settings)
    return cohort if encoder is None else _with_cells(cohort, encoder, read_cells(settings, cohort.records))


def _with_cells(cohort: Cohort, encoder: ColumnEncoder, cells: Cells) -> Cohort:
    return replace(cohort, columns=apply_encoder(encoder, cells))
