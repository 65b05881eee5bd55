"""Load the manifest that the data settings name; phantom and MedMNIST files are written on first use."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from voxlift.app.config import DataSettings
from voxlift.app.progress import counted_bar, progress_bar
from voxlift.app.tasks.base import Task
from voxlift.data_pipelines.tables.manifest import Manifest, TableOptions, load_manifest
from voxlift.data_pipelines.tables.reader import read_table, require_columns
from voxlift.data_pipelines.tables.regions import RegionColumns
from voxlift.data_pipelines.tables.subjects import SUBJECT_NOTES

log = logging.getLogger("voxlift")


def load_subjects(data: DataSettings, task: Task, *, allow_absent: bool = False) -> Manifest:
    """Return the manifest that the data settings name.

    Phantom and MedMNIST files are written on first use.

    Args:
        data: The settings.
        task: How the label is read.
        allow_absent: Whether classes may have no row.

    Raises:
        ManifestError: The table cannot be used.
    """
    data = locate_table(data)
    options = replace(table_options(data, task), allow_absent=allow_absent)
    manifest = load_manifest(str(data.table), options)
    task.check_names(manifest.classes, data)
    if not allow_absent:
        task.check_records(manifest)
    for kind, note in manifest.notes.items():
        log.log(logging.WARNING if kind in SUBJECT_NOTES else logging.INFO, "%s: %s", manifest.source, note)
    if manifest.left_out:
        log.info("Rows left out of %s: %s", manifest.source, describe_left_out(manifest))
    return manifest


def locate_table(data: DataSettings) -> DataSettings:
    """Return the settings with their table; those of phantom and MedMNIST are written on first use."""
    if data.name == "manifest":
        return data
    return _write_phantom(data) if data.name == "phantom" else _write_medmnist(data)


def table_options(data: DataSettings, task: Task) -> TableOptions:
    """Return the table options of data settings and task; absent files stay where bad ones are skipped."""
    return TableOptions(
        root=data.root or None,
        image_column=data.image_column,
        image_columns=tuple(data.image_columns),
        label_column=data.label_column,
        label_columns=tuple(data.label_columns),
        target=task.target,
        subject_column=data.subject_column,
        split_column=data.split_column,
        classes=tuple(data.classes),
        label_bins=tuple(data.label_bins),
        regions=region_columns(data),
        keep_absent=data.on_bad_file == "skip",
    )


def region_columns(data: DataSettings) -> RegionColumns:
    """Return the columns of the masks or centres."""
    return RegionColumns(data.mask_column, tuple(data.centre_columns), data.centre_space)


def describe_left_out(manifest: Manifest) -> str:
    """Return why rows are not used, each reason with its number of rows."""
    return ", ".join(f"{reason} ({count})" for reason, count in manifest.left_out.items())


def check_columns(data: DataSettings, columns: Sequence[str]) -> None:
    """Raise if the user's own table lacks columns that `model.columns` names.

    Raises:
        ManifestError: It does, or cannot be read.
    """
    table = Path(str(data.table)).expanduser()
    if data.name == "manifest" and not table.is_dir():
        require_columns(read_table(table), columns, setting="model.columns")


def _write_phantom(data: DataSettings) -> DataSettings:
    """Write the phantom's files; return the settings of its table."""
    from voxlift.data_pipelines.phantom.tasks import classes_of_task, findings_of_task
    from voxlift.data_pipelines.phantom.write import write_phantom

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
    findings = data.label_columns or findings_of_task(task)
    located = _with_written_columns(data, table, classes_of_task(task))
    return replace(located, label_columns=list(findings))


def _write_medmnist(data: DataSettings) -> DataSettings:
    """Write the benchmark's files; return the settings of its table."""
    from voxlift.data_pipelines.medmnist import classes_of, write_medmnist

    npz = Path(str(data.npz)).expanduser()
    with counted_bar(f"Writing {npz.name} as NIfTI files") as count:
        table = write_medmnist(npz, data.folder, workers=os.cpu_count() or 1, progress=count)
    return _with_written_columns(data, table, classes_of(table, npz))


def _with_written_columns(data: DataSettings, table: Path, classes: tuple[str, ...]) -> DataSettings:
    """Return the settings of a table that we wrote; the user's choice of classes is kept."""
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
