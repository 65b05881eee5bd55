"""`model=covariates`: what columns of the table tell without any image, for networks to be compared with.

The subjects, splits, files and metrics are those of a network's run; in place of `model.keras` there is
`coefficients.csv`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.data.cohort import Cohort, gather_cohort
from voxlift.app.data.sources import check_columns, locate_table
from voxlift.app.evaluation.scores import Scores
from voxlift.app.files import write_rows
from voxlift.app.inference.evaluate import judge_scores
from voxlift.app.inference.scores import scores_of_split
from voxlift.app.runs.folder import RunFolder, create_run
from voxlift.app.runs.predictions import prediction_rows
from voxlift.app.runs.subjects import describe_run, reopen_subjects
from voxlift.app.runtime.environment import peak_memory_bytes
from voxlift.app.runtime.logs import logging_to_file
from voxlift.app.runtime.setup import prepare_runtime
from voxlift.app.training.finalize import end_run
from voxlift.data_pipelines.tables.columns import read_columns

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


Cells = NDArray[np.object_]


def train_on_table(settings: TrainSettings, run: RunFolder | None = None) -> int:
    """Fit, score and report as the settings say; the counterpart of training a network.

    Args:
        settings: with `model.columns`.
        run: a folder in which this began before; None makes one.

    Returns:
        The exit status, 0.

    Raises:
        SettingsError, ManifestError, VolumeError: the input is at fault; no folder is left.
    """
    check_columns(settings.data, settings.model.columns)  # before volumes are prepared
    with logging_to_file() as attach:
        cohort = gather_cohort(settings) if run is None else reopen_subjects(run, settings)
        settings.data.classes = list(cohort.classes)
        cells = read_covariates(settings, cohort)
        name = f"{settings.data.name}-{settings.model.name}-seed{settings.seed}"
        run = run or create_run(settings.run_dir, runs_folder=settings.runs_folder, name=name)
        attach(run.log)
        _describe(run, settings, cohort)
        _fit_into(run, settings, cohort=cohort, cells=cells)
    return 0


def read_covariates(settings: TrainSettings, cohort: Cohort) -> Cells:
    """The cells [N, columns] of `model.columns` for each of the cohort's volumes, see `read_columns`.

    Raises:
        SettingsError: the label is among the columns.
        ManifestError: the table lacks a column, or there is no table.
    """
    data = locate_table(settings.data)
    if data.label_column in settings.model.columns:
        raise SettingsError(f"model.columns: {data.label_column} is the label itself; leave it out.")
    return read_columns(str(data.table), cohort.records, settings.model.columns)


def build_regression(cells: Cells, *, balance: bool) -> Pipeline:
    """A logistic regression that takes cells [N, columns] as they stand in a table, not yet fitted.

    Numbers are made symmetric and brought to one scale (Yeo-Johnson), gaps are filled with the median and
    marked; words become one indicator each, a gap being a word of its own.

    Args:
        cells: as `read_covariates` gives them, to tell columns of numbers from columns of words.
        balance: whether classes weigh the same, however many subjects each has.
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


def _fit_into(run: RunFolder, settings: TrainSettings, *, cohort: Cohort, cells: Cells) -> None:
    began = time.perf_counter()
    model = build_regression(cells, balance=settings.trainer.balance != "none")
    training = cohort.indices("train")
    model.fit(cells[training], cohort.labels("train"))
    seconds = time.perf_counter() - began
    scores = _score(model, cohort, cells)
    write_rows(run.predictions, prediction_rows(scores))
    write_rows(run.path / "coefficients.csv", coefficient_rows(model, settings.model.columns, cohort.classes))
    metrics = judge_scores(scores)
    metrics["cost"] = _cost(model, seconds=seconds)
    end_run(run, settings, metrics, cohort=cohort)


def coefficient_rows(
    model: Pipeline, columns: Sequence[str], classes: Sequence[str]
) -> list[dict[str, str | float]]:
    """Rows of `coefficients.csv`: of each feature on its scale after `build_regression`, per class.

    Two classes have one row a feature, of the log odds of the second.
    """
    regression = model[-1]
    features = [_spell_feature(name, columns) for name in model[0].get_feature_names_out()]
    spoken = classes[1:] if len(regression.coef_) == 1 else classes
    return [
        {"class": name, "feature": feature, "coefficient": float(value)}
        for name, constant, row in zip(spoken, regression.intercept_, regression.coef_, strict=True)
        for feature, value in zip(["(constant)", *features], [constant, *row], strict=True)
    ]


def _spell_feature(name: str, columns: Sequence[str]) -> str:
    """A feature's name as scikit-learn builds it from column numbers, with the column's own name.

    >>> _spell_feature("words__x1_F", ["age", "sex"])
    'sex=F'
    >>> _spell_feature("numbers__missingindicator_x0", ["age", "sex"])
    'age missing'
    """
    found = re.fullmatch(r"\w+?__(missingindicator_)?x(\d+)(?:_(.*))?", name, re.DOTALL)
    if found is None:
        return name
    mark, number, word = found.groups()
    column = columns[int(number)]
    return f"{column} missing" if mark else column if word is None else f"{column}={word}"


def _describe(run: RunFolder, settings: TrainSettings, cohort: Cohort) -> None:
    precision = prepare_runtime(precision="float32", device="cpu", deterministic=False, seed=settings.seed)
    describe_run(run, settings, cohort=cohort, precision=precision)


def _score(model: Pipeline, cohort: Cohort, cells: Cells) -> dict[str, Scores]:
    return {
        split: scores_of_split(cohort, split, model.predict_proba(cells[cohort.indices(split)]))
        for split in cohort.present
    }


def _cost(model: Pipeline, *, seconds: float) -> dict[str, float]:
    regression = model[-1]
    return {
        "parameters": regression.coef_.size + regression.intercept_.size,
        "train_seconds": seconds,
        "peak_memory_bytes": peak_memory_bytes(),
    }
