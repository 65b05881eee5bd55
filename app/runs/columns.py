"""`columns.json`: how columns of the table become the input of a run's model, written and read."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.data.cohort import Cohort
from voxlift.app.data.columns import Cells, ColumnEncoder, apply_encoder, read_cells, read_encoder
from voxlift.app.errors import shorten
from voxlift.app.files import read_json, write_json
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.subjects import read_subjects, saved_name


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
