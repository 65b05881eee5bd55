"""The kinds of models that have no network: how each is checked before a training, and fitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from voxlift.app.config import TrainSettings
from voxlift.app.data.cohort import Cohort
from voxlift.app.runs.folder import RunFolder
from voxlift.app.training.linear_model import LinearModel, check_embeddings, fit_linear, score_linear
from voxlift.app.training.table_model import TableModel, check_covariates, fit_covariates, score_covariates
from voxlift.data_pipelines.tables.manifest import Manifest


@dataclass(frozen=True)
class ModelWithoutNetwork:
    """A kind of model that is fitted at once.

    Attributes:
        check: Raises an error the user can fix, before any image is read, where the model cannot be fitted.
        fit: Fits to the training subjects of a cohort.
        score: Returns the scores of a split of a cohort by the model of a finished run.
    """

    check: Callable[[TrainSettings, Manifest], None]
    fit: Callable[[TrainSettings, Cohort], LinearModel | TableModel]
    score: Callable[[RunFolder, TrainSettings, Cohort, str], Any]


def _check_nothing(settings: TrainSettings, manifest: Manifest) -> None:
    """Pass: the images are all that the model needs."""


WITHOUT_NETWORK = {
    "linear": ModelWithoutNetwork(_check_nothing, fit_linear, score_linear),
    "embedding": ModelWithoutNetwork(check_embeddings, fit_linear, score_linear),
    "table": ModelWithoutNetwork(check_covariates, fit_covariates, score_covariates),
}  # by `model.kind`


def check_model(settings: TrainSettings, manifest: Manifest) -> None:
    """Pass when a model without a network can be fitted, or the table has the columns that a network joins.

    Networks are checked when they are built.

    Raises:
        SettingsError, ManifestError: It cannot, or has not.
    """
    if settings.model.join_columns:
        check_covariates(settings, manifest)
    if not settings.model.has_network:
        WITHOUT_NETWORK[settings.model.kind].check(settings, manifest)
