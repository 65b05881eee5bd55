"""From the data settings to a manifest; the tables of phantom and MedMNIST are written on first use."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from voxlift.app.config import DataSettings
from voxlift.app.progress import counted_bar, progress_bar
from voxlift.data_pipelines.tables.manifest import Manifest, TableOptions, load_manifest
from voxlift.data_pipelines.tables.reader import read_table, require_columns

log = logging.getLogger("voxlift")


def load_subjects(data: DataSettings) -> Manifest:
    """The manifest that the data settings name; phantom and MedMNIST files are written on first use."""
    return _load_table(locate_table(data))


def locate_table(data: DataSettings) -> DataSettings:
    """The settings with their table; that of the phantom and of MedMNIST is written on first use."""
    if data.name == "manifest":
        return data
    table, classes = _write_phantom(data) if data.name == "phantom" else _write_medmnist(data)
    return _with_written_columns(data, table, classes)


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
        log.info("Rows left out of %s: %s", manifest.source, describe_left_out(manifest))
    return manifest


def describe_left_out(manifest: Manifest) -> str:
    """Why rows are not used, each reason with how many they are."""
    return ", ".join(f"{reason} ({count})" for reason, count in manifest.left_out.items())


def check_columns(data: DataSettings, columns: Sequence[str]) -> None:
    """Pass when the user's own table has the columns that `model.columns` names.

    Raises:
        ManifestError: it lacks some, or cannot be read.
    """
    table = Path(str(data.table)).expanduser()
    if data.name == "manifest" and not table.is_dir():
        require_columns(read_table(table), columns, setting="model.columns")


def _write_phantom(data: DataSettings) -> tuple[Path, tuple[str, ...]]:
    """The phantom's table and its classes in index order."""
    from voxlift.data_pipelines.phantom import PHANTOM_CLASSES, write_phantom

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
    from voxlift.data_pipelines.medmnist import classes_of, write_medmnist

    npz = Path(str(data.npz)).expanduser()
    with counted_bar(f"Writing {npz.name} as NIfTI files") as count:
        table = write_medmnist(npz, data.folder, workers=os.cpu_count() or 1, progress=count)
    return table, classes_of(table, npz)


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
