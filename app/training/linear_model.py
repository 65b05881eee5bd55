"""`model=linear` and `model=embedding`: a linear model of prepared voxels, or of vectors from a file.

Subjects, splits, files and metrics are those of the run of a network, with `linear.npz` in place of
`model.keras`.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import TrainSettings
from voxlift.app.data.cohort import Cohort
from voxlift.app.inference.scores import build_split_scores
from voxlift.app.progress import phase
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.linear import LinearWeights
from voxlift.app.runtime.devices import read_peak_memory_bytes
from voxlift.app.training.linear_head import Features, LinearFit, fit_linear_head, predict_linear
from voxlift.data_pipelines.geometry import from_tensor_axes
from voxlift.data_pipelines.preprocess.prepare import prepare_volume
from voxlift.data_pipelines.tables.embeddings import find_vectors, read_embeddings
from voxlift.data_pipelines.tables.manifest import Manifest
from voxlift.data_pipelines.volume import Volume
from voxlift.data_pipelines.writers import save_volume


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
        return {
            split: build_split_scores(
                cohort, split, cohort.task.predict_linear(self.fitted.logits[cohort.indices(split)])
            )
            for split in cohort.present
        }

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
