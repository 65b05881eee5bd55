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

from voxlift.app.config import TrainSettings
from voxlift.app.data.cohort import Cohort
from voxlift.app.data.columns import Cells, check_model_columns, fit_encoder, read_cells
from voxlift.app.files import write_rows
from voxlift.app.inference.scores import build_split_scores
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
        intercept: [K].
        outputs: [N, K] of every volume of the cohort.
        seconds: What the fit took.
    """

    task: Task
    features: tuple[str, ...]
    coefficients: NDArray[np.float64]
    intercept: NDArray[np.float64]
    outputs: NDArray[np.float64]
    seconds: float

    @property
    def network(self) -> None:
        """None: there is no network."""
        return

    def save(self, run: RunFolder) -> None:
        """Write `coefficients.csv`."""
        names = self.task.names(load_settings(run).data)
        write_rows(run.coefficients, coefficient_rows(self, names))

    def score(self, cohort: Cohort) -> dict[str, Any]:
        """Return the scores of each split that holds subjects."""
        return {
            split: build_split_scores(cohort, split, self.task.predict(self.outputs[cohort.indices(split)]))
            for split in cohort.present
        }

    def cost(self, cohort: Cohort) -> dict[str, float]:  # noqa: ARG002 - as all fitted models
        """Return the number of coefficients, the seconds of the fit, and the memory of the process."""
        constants = np.zeros((1, len(self.intercept)))
        shown = len(self.task.linear_columns(constants, tuple(map(str, range(constants.shape[1])))))
        return {
            "parameters": (len(self.features) + 1) * shown,
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
    )


def check_covariates(settings: TrainSettings, manifest: Manifest) -> None:  # noqa: ARG001 - as all checks of models
    """Pass when the table has the columns that `model.columns` names, and the label is not among them.

    Raises:
        SettingsError: The label is among them.
        ManifestError: The table lacks a column, or cannot be read.
    """
    check_model_columns(settings)


def coefficient_rows(model: TableModel, names: tuple[str, ...]) -> list[dict[str, str | float]]:
    """Return the rows of `coefficients.csv`: per output, of each feature on its scale in the regression.

    Two classes have one row for each feature, for the log odds of the second class.

    Args:
        model: The fitted model.
        names: Of the outputs.
    """
    features = ["(constant)", *model.features]
    every = np.concatenate([model.intercept[None], model.coefficients])  # [1 + F, K]
    return [
        {"class": output or names[-1], "feature": feature, "coefficient": float(value)}
        for output, values in model.task.linear_columns(every, names).items()
        for feature, value in zip(features, values, strict=True)
    ]
