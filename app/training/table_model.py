"""`model=covariates`: a logistic regression on columns of the table, to compare networks with.

Subjects, splits, files and metrics are those of the run of a network, with `coefficients.csv` in place of
`model.keras`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import DataSettings, SettingsError, TrainSettings
from voxlift.app.data.cohort import Cohort
from voxlift.app.data.sources import check_columns, locate_table
from voxlift.app.evaluation.scores import Scores
from voxlift.app.files import write_rows
from voxlift.app.inference.scores import build_split_scores
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runtime.devices import read_peak_memory_bytes
from voxlift.data_pipelines.tables.manifest import Manifest
from voxlift.data_pipelines.tables.values import read_columns

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


Cells = NDArray[np.object_]


@dataclass(frozen=True)
class TableModel:
    """A logistic regression on columns of the table, fitted.

    Attributes:
        regression: The fitted pipeline of `build_regression`.
        columns: The names of the columns.
        cells: Their values [N, columns] for every volume of the cohort.
        seconds: What the fit took.
    """

    regression: Pipeline
    columns: tuple[str, ...]
    cells: Cells
    seconds: float

    @property
    def network(self) -> None:
        """None: there is no network."""
        return

    def save(self, run: RunFolder) -> None:
        """Write `coefficients.csv`."""
        classes = load_settings(run).data.classes
        write_rows(run.coefficients, coefficient_rows(self.regression, self.columns, classes))

    def score(self, cohort: Cohort) -> dict[str, Scores]:
        """Return the scores of each split that holds subjects."""
        return {
            split: build_split_scores(
                cohort, split, self.regression.predict_proba(self.cells[cohort.indices(split)])
            )
            for split in cohort.present
        }

    def cost(self, cohort: Cohort) -> dict[str, float]:  # noqa: ARG002 - as all fitted models
        """Return the number of coefficients, the seconds of the fit, and the memory of the process."""
        last = self.regression[-1]
        return {
            "parameters": last.coef_.size + last.intercept_.size,
            "train_seconds": self.seconds,
            "peak_memory_bytes": read_peak_memory_bytes(),
        }


def fit_covariates(settings: TrainSettings, cohort: Cohort) -> TableModel:
    """Fit a regression on `model.columns` to the training subjects.

    Raises:
        SettingsError: The label is among the columns.
        ManifestError: The table lacks a column, or there is no table.
    """
    cells = read_covariates(settings, cohort)
    started = time.perf_counter()
    regression = build_regression(cells, balance=settings.trainer.balance != "none")
    regression.fit(cells[cohort.indices("train")], cohort.labels("train"))
    return TableModel(regression, tuple(settings.model.columns), cells, time.perf_counter() - started)


def check_covariates(settings: TrainSettings, manifest: Manifest) -> None:  # noqa: ARG001 - as all checks of models
    """Pass when the table has the columns that `model.columns` names, and the label is not among them.

    Raises:
        SettingsError: The label is among them.
        ManifestError: The table lacks a column, or cannot be read.
    """
    check_columns(settings.data, settings.model.columns)
    _refuse_label(settings.data, settings.model.columns)


def read_covariates(settings: TrainSettings, cohort: Cohort) -> Cells:
    """Return the cells [N, columns] of `model.columns` for each of the cohort's volumes, see `read_columns`.

    Raises:
        SettingsError: The label is among the columns.
        ManifestError: The table lacks a column, or there is no table.
    """
    data = locate_table(settings.data)
    _refuse_label(data, settings.model.columns)
    rows = [record.row for record in cohort.records]
    return read_columns(str(data.table), rows, settings.model.columns)


def _refuse_label(data: DataSettings, columns: Sequence[str]) -> None:
    if data.label_column in columns:
        raise SettingsError(f"model.columns: {data.label_column} is the label itself; leave it out.")


def build_regression(cells: Cells, *, balance: bool) -> Pipeline:
    """Return a logistic regression for cells [N, columns] as they stand in a table, not yet fitted.

    Numbers are made symmetric and brought to one scale (Yeo-Johnson); missing ones become the median, with an
    indicator. Words are one-hot encoded; a missing word is a category of its own.

    Source: Yeo and Johnson (2000), A new family of power transformations, doi:10.1093/biomet/87.4.954.

    Args:
        cells: Of all volumes, see `read_covariates`; they decide which columns hold numbers.
        balance: Whether all classes have the same weight, however many subjects each has.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, PowerTransformer

    is_word = [any(isinstance(cell, str) for cell in column) for column in cells.T]
    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), PowerTransformer())
    words = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="(missing)"), OneHotEncoder(handle_unknown="ignore")
    )
    columns = ColumnTransformer(
        [
            ("numbers", numbers, np.flatnonzero(np.logical_not(is_word))),
            ("words", words, np.flatnonzero(is_word)),
        ],
    )
    return make_pipeline(
        columns, LogisticRegression(class_weight="balanced" if balance else None, max_iter=1000)
    )


def coefficient_rows(
    model: Pipeline, columns: Sequence[str], classes: Sequence[str]
) -> list[dict[str, str | float]]:
    """Return the rows of `coefficients.csv`: per class, of each feature on its scale in the regression.

    Two classes have one row for each feature, for the log odds of the second class.
    """
    regression = model[-1]
    features = [_feature_name(name, columns) for name in model[0].get_feature_names_out()]
    shown = classes[1:] if len(regression.coef_) == 1 else classes
    return [
        {"class": name, "feature": feature, "coefficient": float(value)}
        for name, constant, row in zip(shown, regression.intercept_, regression.coef_, strict=True)
        for feature, value in zip(["(constant)", *features], [constant, *row], strict=True)
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
