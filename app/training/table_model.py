"""`model=covariates`: a regression on columns of the table, to compare networks with.

Subjects, splits, files and metrics are those of the run of a network, with `coefficients.csv` in place of
`model.keras`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.data.cohort import Cohort
from voxlift.app.data.sources import check_columns, locate_table
from voxlift.app.files import write_rows
from voxlift.app.inference.scores import build_split_scores
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runtime.devices import read_peak_memory_bytes
from voxlift.app.tasks import task_of
from voxlift.app.tasks.base import LinearOptions, Task
from voxlift.data_pipelines.tables.manifest import Manifest
from voxlift.data_pipelines.tables.values import read_columns

if TYPE_CHECKING:
    from sklearn.compose import ColumnTransformer


Cells = NDArray[np.object_]


@dataclass(frozen=True)
class TableModel:
    """A linear model of columns of the table, fitted.

    Attributes:
        task: What is predicted.
        columns: The names of the columns.
        features: Names of the features that were made of them, of scikit-learn.
        coefficients: [F, K] of the features on their scale in the regression.
        intercept: [K].
        outputs: [N, K] of every volume of the cohort.
        seconds: What the fit took.
    """

    task: Task
    columns: tuple[str, ...]
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
        read_covariates(settings, cohort),
        cohort,
        columns=tuple(settings.model.columns),
        balance=settings.trainer.balance != "none",
    )


def fit_table_model(cells: Cells, cohort: Cohort, *, columns: tuple[str, ...], balance: bool) -> TableModel:
    """Fit a regression on cells [N, columns] as they stand in a table to the training subjects.

    Args:
        cells: Of all volumes of the cohort, see `read_covariates`; they decide which columns hold numbers.
        cohort: With labels and splits.
        columns: Names of the columns.
        balance: Whether all classes have the same weight, however many subjects each has.
    """
    started = time.perf_counter()
    encoder, train = build_encoder(cells), cohort.indices("train")
    encoder.fit(cells[train])
    features = _dense(encoder.transform(cells))
    coefficients, intercept = cohort.task.fit_linear(
        features[train], cohort.labels("train"), LinearOptions(balance=balance)
    )
    return TableModel(
        cohort.task,
        columns,
        tuple(encoder.get_feature_names_out()),
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
    check_columns(settings.data, settings.model.columns)
    _refuse_label(settings)


def read_covariates(settings: TrainSettings, cohort: Cohort) -> Cells:
    """Return the cells [N, columns] of `model.columns` for each of the cohort's volumes, see `read_columns`.

    Raises:
        SettingsError: The label is among the columns.
        ManifestError: The table lacks a column, or there is no table.
    """
    data = locate_table(settings.data)
    _refuse_label(replace(settings, data=data))
    rows = [record.row for record in cohort.records]
    return read_columns(str(data.table), rows, settings.model.columns)


def _refuse_label(settings: TrainSettings) -> None:
    labels = task_of(settings).label_columns(settings.data)
    named = [column for column in settings.model.columns if column in labels]
    if named:
        raise SettingsError(f"model.columns: {', '.join(named)} is the label itself; leave it out.")


def build_encoder(cells: Cells) -> ColumnTransformer:
    """Return what makes features of cells [N, columns] as they stand in a table, not yet fitted.

    Numbers are made symmetric and brought to one scale (Yeo-Johnson); missing ones become the median, with an
    indicator. Words are one-hot encoded; a missing word is a category of its own.

    Source: Yeo and Johnson (2000), A new family of power transformations, doi:10.1093/biomet/87.4.954.

    Args:
        cells: Of all volumes, see `read_covariates`; they decide which columns hold numbers.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, PowerTransformer

    is_word = [any(isinstance(cell, str) for cell in column) for column in cells.T]
    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), PowerTransformer())
    words = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="(missing)"), OneHotEncoder(handle_unknown="ignore")
    )
    return ColumnTransformer(
        [
            ("numbers", numbers, np.flatnonzero(np.logical_not(is_word))),
            ("words", words, np.flatnonzero(is_word)),
        ],
    )


def _dense(features: Any) -> NDArray[np.float64]:  # noqa: ANN401 - sparse where words are many
    return np.asarray(features.toarray() if hasattr(features, "toarray") else features, np.float64)


def coefficient_rows(model: TableModel, names: tuple[str, ...]) -> list[dict[str, str | float]]:
    """Return the rows of `coefficients.csv`: per output, of each feature on its scale in the regression.

    Two classes have one row for each feature, for the log odds of the second class.

    Args:
        model: The fitted model.
        names: Of the outputs.
    """
    features = ["(constant)", *(_feature_name(name, model.columns) for name in model.features)]
    every = np.concatenate([model.intercept[None], model.coefficients])  # [1 + F, K]
    return [
        {"class": output or names[-1], "feature": feature, "coefficient": float(value)}
        for output, values in model.task.linear_columns(every, names).items()
        for feature, value in zip(features, values, strict=True)
    ]


def _feature_name(name: str, columns: Sequence[str]) -> str:
    """Return a feature name of scikit-learn with the name of the column in place of its number.

    >>> _feature_name("words__x1_F", ["age", "sex"])
    'sex=F'
    >>> _feature_name("numbers__missingindicator_x0", ["age", "sex"])
    'age missing'
    """
    found = re.fullmatch(r"\w+?__(missingindicator_)?x(\d+)(?:_(.*))?", name, re.DOTALL)
    if found is None:
        return name
    mark, number, word = found.groups()
    column = columns[int(number)]
    return f"{column} missing" if mark else column if word is None else f"{column}={word}"
