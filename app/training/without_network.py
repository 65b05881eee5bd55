"""Models without a network: how each kind is checked before a training, fitted, and scored.

`model=linear` and `model=embedding` are a linear model of prepared voxels, or of vectors from a file.
`model=covariates` is a regression on columns of the table, to compare networks with. Subjects, splits, files
and metrics are those of the run of a network, with `linear.npz` or `coefficients.csv` in place of
`model.keras`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.data.cohort import Cohort
from voxlift.app.data.columns import Cells, ColumnEncoder, check_model_columns, fit_encoder, read_cells
from voxlift.app.errors import shorten
from voxlift.app.files import read_json, write_json, write_rows
from voxlift.app.inference.scores import build_split_scores
from voxlift.app.progress import phase
from voxlift.app.runs.cohort import load_encoder
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.linear import LinearWeights
from voxlift.app.runtime.devices import read_peak_memory_bytes
from voxlift.app.tasks.base import LinearOptions, Task
from voxlift.app.training.linear_head import Features, LinearFit, fit_linear_head, predict_linear
from voxlift.data_pipelines.geometry import from_tensor_axes
from voxlift.data_pipelines.preprocess.prepare import prepare_volume
from voxlift.data_pipelines.tables.embeddings import find_vectors, read_embeddings
from voxlift.data_pipelines.tables.manifest import Manifest
from voxlift.data_pipelines.volume import Volume
from voxlift.data_pipelines.writers import save_volume


def score_outputs(cohort: Cohort, outputs: NDArray[np.float64]) -> dict[str, Any]:
    """Return the scores of each split that holds subjects.

    Args:
        cohort: Whose volumes.
        outputs: Of the linear model for every volume of the cohort, [N, K].
    """
    return {
        split: build_split_scores(cohort, split, cohort.task.predict_linear(outputs[cohort.indices(split)]))
        for split in cohort.present
    }


@dataclass(frozen=True, eq=False)
class LinearModel:
    """A fitted linear model.

    Attributes:
        fitted: Its weights, and the logits of all volumes of the cohort.
        cohort: Whose volumes.
        seconds: What the fit took.
    """

    fitted: LinearFit
    cohort: Cohort
    seconds: float

    @property
    def network(self) -> None:
        """None: there is no network."""
        return

    def save(self, run: RunFolder) -> None:
        """Write `linear.npz`, and the weights of voxels as NIfTI."""
        self.fitted.weights.save(run.linear)
        if self.fitted.weights.weights.ndim == 5:
            write_weight_maps(self.fitted.weights, self.cohort, run.path)

    def score(self, cohort: Cohort) -> dict[str, Any]:
        """Return the scores of each split that holds subjects."""
        return score_outputs(cohort, self.fitted.logits)

    def cost(self, cohort: Cohort) -> dict[str, float]:  # noqa: ARG002 - as all fitted models
        """Return the number of weights, the chosen C, seconds of the fit, and memory of the process."""
        weights = self.fitted.weights
        return {
            "parameters": weights.weights.size + weights.intercept.size,
            "strength": weights.strength,
            "train_seconds": self.seconds,
            "peak_memory_bytes": read_peak_memory_bytes(),
        }


@dataclass(frozen=True)
class PreparedVoxels:
    """The voxels of a cohort's prepared volumes as features, read from the cache in blocks."""

    cohort: Cohort

    @property
    def count(self) -> int:
        """N, the number of volumes."""
        return len(self.cohort.files)

    @property
    def shape(self) -> tuple[int, ...]:
        """[D, H, W, C]."""
        return self.cohort.shape

    def read(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return the flat voxels `start` to `stop` of all volumes, [N, stop - start]."""
        dtype = np.dtype(self.cohort.dtype)
        values = np.empty((len(self.cohort.files), stop - start))
        for row, file in zip(values, self.cohort.files, strict=True):
            row[:] = np.fromfile(file, dtype, count=stop - start, offset=start * dtype.itemsize)
        return values


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors [N, F] of a cohort as features."""

    values: NDArray[np.float64]

    @property
    def count(self) -> int:
        """N, the number of volumes."""
        return len(self.values)

    @property
    def shape(self) -> tuple[int, ...]:
        """[F]."""
        return self.values.shape[1:]

    def read(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return a copy of the columns `start` to `stop`, [N, stop - start]."""
        return self.values[:, start:stop].copy()


def fit_linear(settings: TrainSettings, cohort: Cohort) -> LinearModel:
    """Fit a linear model to the voxels or the vectors of the training subjects.

    Raises:
        ManifestError: A volume has no vector, or the file of vectors cannot be read.
    """
    started = time.perf_counter()
    features = build_features(settings, cohort)
    with phase("Fitting the linear model"):
        fitted = fit_linear_head(features, cohort, balance=settings.trainer.balance != "none")
    return LinearModel(fitted, cohort, time.perf_counter() - started)


def score_linear(run: RunFolder, settings: TrainSettings, cohort: Cohort, split: str) -> Any:  # noqa: ANN401 - the task's own class
    """Return the scores of a split with the model of a finished run.

    Args:
        run: With `linear.npz`.
        settings: Of the run.
        cohort: With no other volumes than those of the split.
        split: `train`, `val` or `test`.

    Raises:
        ManifestError: A volume has no vector, or the file of vectors cannot be read.
    """
    logits = predict_linear(build_features(settings, cohort), LinearWeights.read(run.linear))
    return build_split_scores(cohort, split, cohort.task.predict_linear(logits))


def build_features(settings: TrainSettings, cohort: Cohort) -> Features:
    """Return what the model takes of a cohort: its prepared voxels, or the vectors of `data.embeddings`."""
    if settings.model.kind != "embedding":
        return PreparedVoxels(cohort)
    return Vectors(find_vectors(read_embeddings(_embeddings_file(settings)), cohort.records))


def check_embeddings(settings: TrainSettings, manifest: Manifest) -> None:
    """Pass when every record has a vector in `data.embeddings`.

    Raises:
        ManifestError: Records have none, or the file cannot be read.
    """
    find_vectors(read_embeddings(_embeddings_file(settings)), manifest.records)


def write_weight_maps(weights: LinearWeights, cohort: Cohort, folder: Path) -> None:
    """Write the weights as NIfTI: `weights.nii.gz` of two classes, `weights_CLASS.nii.gz` of several.

    Of grades `weights_higher-grade.nii.gz`. A value is the change of the log odds of the second class (of
    several: of the class's logit; of a higher grade) per standard deviation of the voxel. The grid is that of
    the first training volume after preprocessing, which is the template's where all images are in its space.
    A channel each for several images per subject.

    Args:
        weights: Of voxels.
        cohort: The fitted one.
        folder: Receives the files.
    """
    maps, classes = weights.weights, cohort.classes
    first = cohort.records[cohort.indices("train")[0]]
    affine = prepare_volume(first.images, cohort.preprocess, first.region).affine
    for output, values in cohort.task.linear_columns(maps, classes).items():
        name = f"weights_{_file_name(output)}" if output else "weights"
        voxels = from_tensor_axes(values[..., 0] if values.shape[-1] == 1 else values)
        path = folder / f"{name}.nii.gz"
        save_volume(Volume(np.ascontiguousarray(voxels), affine, path), path)


def _embeddings_file(settings: TrainSettings) -> Path:
    return Path(str(settings.data.embeddings)).expanduser()


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)


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
        return score_outputs(cohort, self.outputs)

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
