"""`model=covariates`: a regression on columns of the table, to compare networks with.

Subjects, splits, files and metrics are those of the run of a network, with `coefficients.csv` in place of
`model.keras`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.data.cohort import Cohort
from voxlift.app.data.columns import Cells, ColumnEncoder, check_model_columns, fit_encoder, read_cells
from voxlift.app.errors import shorten
from voxlift.app.files import read_json, write_json, write_rows
from voxlift.app.inference.scores import build_split_scores
from voxlift.app.runs.cohort import load_encoder
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runtime.devices import read_peak_memory_bytes
from voxlift.app.tasks.base import LinearOptions, Task
from voxlift.data_pipelines.tables.manifest import Manifest


@dataclass(frozen=True)
class TableModel:
    """A linear model of columns of the table, fitted.

    Attributes:
        task: What is predicted.
        features: Names of the features that were made of the columns.
        coefficients: [F, K] of the features on their scale in the regression.
        intercept: [K]; of grades the coefficients are [F, 1] and the intercept [K - 1].
        outputs: Features times coefficients plus intercept, of every volume of the cohort.
        seconds: What the fit took.
        encoder: How cells become the features.
    """

    task: Task
    features: tuple[str, ...]
    coefficients: NDArray[np.float64]
    intercept: NDArray[np.float64]
    outputs: NDArray[np.float64]
    seconds: float
    encoder: ColumnEncoder

    @property
    def network(self) -> None:
        """None: there is no network."""
        return

    def save(self, run: RunFolder) -> None:
        """Write `coefficients.csv`, and `columns.json` with all that scores other subjects."""
        names = self.task.names(load_settings(run).data)
        write_rows(run.coefficients, coefficient_rows(self, names))
        weights = {"coefficients": self.coefficients.tolist(), "intercept": self.intercept.tolist()}
        write_json(run.columns, {"columns": self.encoder.as_json(), **weights})

    def score(self, cohort: Cohort) -> dict[str, Any]:
        """Return the scores of each split that holds subjects."""
        return {
            split: build_split_scores(
                cohort, split, self.task.predict_linear(self.outputs[cohort.indices(split)])
            )
            for split in cohort.present
        }

    def cost(self, cohort: Cohort) -> dict[str, float]:
        """Return the number of coefficients, the seconds of the fit, and the memory of the process."""
        return {
            "parameters": len(coefficient_rows(self, cohort.classes)),
            "train_seconds": self.seconds,
            "peak_memory_bytes": read_peak_memory_bytes(),
        }


def fit_covariates(settings: TrainSettings, cohort: Cohort) -> TableModel:
    """Fit a regression on `model.columns` to the training subjects.

    Raises:
        SettingsError: The label is among the columns.
        ManifestError: The table lacks a column, or there is no table.
    """
    return fit_table_model(
        read_cells(settings, cohort.records),
        cohort,
        columns=tuple(settings.model.columns),
        balance=settings.trainer.balance != "none",
    )


def fit_table_model(cells: Cells, cohort: Cohort, *, columns: tuple[str, ...], balance: bool) -> TableModel:
    """Fit a regression on cells [N, columns] as they stand in a table to the training subjects.

    Args:
        cells: Of all volumes of the cohort, see `read_cells`.
        cohort: With labels and splits.
        columns: Names of the columns.
        balance: Whether all classes have the same weight, however many subjects each has.
    """
    started = time.perf_counter()
    train = cohort.indices("train")
    encoder = fit_encoder(cells[train], columns)
    features = encoder.encode(cells)
    coefficients, intercept = cohort.task.fit_linear(
        features[train], cohort.labels("train"), LinearOptions(balance=balance)
    )
    return TableModel(
        cohort.task,
        encoder.features,
        coefficients,
        intercept,
        features @ coefficients + intercept,
        time.perf_counter() - started,
        encoder,
    )


def score_covariates(run: RunFolder, settings: TrainSettings, cohort: Cohort, split: str) -> Any:  # noqa: ANN401 - the task's own class
    """Return the scores of other subjects with the model of a finished run, from the cells of their table.

    Args:
        run: With `columns.json`.
        settings: Of the run, with the other data.
        cohort: With no other volumes than those of the split.
        split: Of the cohort.

    Raises:
        ManifestError: The table lacks a column.
        SettingsError: The run's file is missing or damaged.
    """
    encoder = load_encoder(run)
    try:
        saved = read_json(run.columns)
        weights = [np.array(saved[name], np.float64) for name in ("coefficients", "intercept")]
        values = encoder.encode(read_cells(settings, cohort.records)) @ weights[0] + weights[1]
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(
            f"{run.columns}: expected the coefficients that voxlift-train writes; {shorten(error)}. Restore "
            "the file, or train the run again."
        ) from error
    return build_split_scores(cohort, split, cohort.task.predict_linear(values))


def check_covariates(settings: TrainSettings, manifest: Manifest) -> None:  # noqa: ARG001 - as all checks of models
    """Pass when the table has the columns that `model.columns` names, and the label is not among them.

    Raises:
        SettingsError: The label is among them.
        ManifestError: The table lacks a column, or cannot be read.
    """
    check_model_columns(settings)


def coefficient_rows(model: TableModel, names: tuple[str, ...]) -> list[dict[str, str | float]]:
    """Return the rows of `coefficients.csv`: per output, of each feature on its scale in the regression.

    Two classes have one row for each feature, for the log odds of the second class. Grades have one too, for
    the log odds of a higher grade, and a constant for each cut.

    Args:
        model: The fitted model.
        names: Of the outputs.
    """
    constants = model.task.linear_constants(model.intercept, names)
    columns = model.task.linear_columns(model.coefficients, names)
    rows: list[dict[str, str | float]] = []
    for output in dict.fromkeys([*constants, *columns]):
        features = {"(constant)": constants[output]} if output in constants else {}
        features |= dict(zip(model.features, columns.get(output, ()), strict=output in columns))
        rows += [
            {"class": output or names[-1], "feature": feature, "coefficient": float(value)}
            for feature, value in features.items()
        ]
    return rows
