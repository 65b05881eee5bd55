"""A finished run as a Python object: settings, results, network, predictions and explanation maps.

Example:
    run = open_run("runs/volume3d-seed0")
    run.metrics["test"]["auc"], run.history["val_auc"]
    run.predict("new_scans/").probabilities
    run.explain("new_scans/sub-01.nii.gz").to_image().to_filename("map.nii.gz")
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.files import read_json, read_rows
from voxlift.app.inference.ensemble import (
    Ensemble,
    build_member_views,
    load_networks,
    open_ensemble,
    score_batch,
)
from voxlift.app.inference.scans import PreparedScan, find_input_scans, prepare_scan
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder, load_network, open_finished_run, volume_shape
from voxlift.app.runs.results import read_history, read_scores
from voxlift.app.tasks.base import task_of
from voxlift.data_pipelines.volume import Affine, VolumeError
from voxlift.data_pipelines.writers import resample_to_source

AnyPath = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class ScanPredictions:
    """Predictions for N scans, in the order in which the scans were found.

    Attributes:
        classes: K names in index order: of the classes or grades, the findings, or the number.
        subjects: N names: the table's subject, or the path below the folder.
        images: N image paths, several channels joined as in `predictions.csv`.
        probabilities: [N, K] float64; nan where a scan could not be scored; [N, 0] for a number.
        calibrated: [N, K] float64, after the calibration fitted on the run's validation; nan as above; [N, 0]
            for predictions other than of classes.
        decisions: N names of a class or grade, or of the findings present, joined by "; "; "" where not
            scored, and for a number.
        warnings: N texts: what lies outside the range of the training volumes; "" for nothing.
        reasons: N texts: why a scan could not be scored; "" where it was.
        values: [N] float64 predicted numbers of `task=number`, nan as above; [0] for other tasks.
    """

    classes: tuple[str, ...]
    subjects: tuple[str, ...]
    images: tuple[str, ...]
    probabilities: NDArray[np.float64]
    calibrated: NDArray[np.float64]
    decisions: tuple[str, ...]
    warnings: tuple[str, ...]
    reasons: tuple[str, ...]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.subjects)


@dataclass(frozen=True, eq=False)
class ScanMap:
    """A map of the evidence for a class, finding or cut, or of what raises a number, in one scan.

    It has the grid of the network's input.

    Attributes:
        heat: [D, H, W] float32, 0 or more, in arbitrary units.
        affine: 4x4 float64, (width, height, depth) index of `heat` to world mm, RAS+.
        class_name: The class, finding, cut (as `above GRADE`) or number that is explained.
        method: `gradcam` or `occlusion`.
        agreement: Spearman's rank correlation of Grad-CAM with occlusion; None unless `method="both"`.
        source: The image file that the map belongs to.
        prefer: Header transform that the image was read with, `sform` or `qform`.
    """

    heat: NDArray[np.float32]
    affine: Affine
    class_name: str
    method: str
    agreement: float | None
    source: Path
    prefer: str = "sform"

    def to_image(self) -> Any:  # noqa: ANN401 - nibabel ships no types
        """Return the map as a `nibabel.Nifti1Image` on the grid of the source image, float32 [i, j, k]."""
        import nibabel as nib

        volume = resample_to_source(self.heat, self.affine, self.source, prefer=self.prefer)
        return nib.Nifti1Image(volume.voxels, volume.affine)


class Run:
    """A finished run of a network; TensorFlow is imported by `model`, `predict` and `explain` only.

    Attributes:
        folder: Paths of its files.

    Args:
        folder: The folder of a finished run, see `open_run`.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def __repr__(self) -> str:
        return f"Run({str(self.folder.path)!r})"

    @cached_property
    def settings(self) -> TrainSettings:
        """The resolved configuration that the run was trained with."""
        return load_settings(self.folder)

    @property
    def task(self) -> str:
        """What is predicted: `classes`, `findings`, `grades` or `number`."""
        return self.settings.task.name

    @property
    def classes(self) -> tuple[str, ...]:
        """K names in index order: of the classes or grades, the findings, or the number.

        Of two classes, index 1 is the positive one.
        """
        return task_of(self.settings).names(self.settings.data)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Content of `metrics.json`: `val`, `test`, `cost`, and what was chosen on validation."""
        return read_json(self.folder.metrics)

    @cached_property
    def history(self) -> dict[str, NDArray[np.float64]]:
        """Columns of `history.csv`, each an array [epochs]; nan where a value is missing."""
        rows = read_history(self.folder)
        columns = rows[0] if rows else {}
        return {name: np.array([float(row[name] or "nan") for row in rows]) for name in columns}

    @cached_property
    def prediction_rows(self) -> list[dict[str, Any]]:
        """Rows of `predictions.csv`: subject, image, split, labels, and predictions, which are float."""
        return [
            {
                name: float(value) if name in self._probability_columns else value
                for name, value in row.items()
            }
            for row in read_rows(self.folder.predictions)
        ]

    @property
    def predictions(self) -> dict[str, NDArray[Any]]:
        """Columns of `predictions.csv`, each an array [N]: text, and float64 for predictions."""
        rows = self.prediction_rows
        return {name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else {})}

    def scores(self, split: str = "test") -> Any:  # noqa: ANN401 - the class of the task's predictions
        """Return labels and predictions of a split as a value that `app.evaluation` takes."""
        return read_scores(self.folder, split=split)

    def model(self) -> Any:  # noqa: ANN401 - Keras ships no types
        """Return the Keras model with the best weights: float volumes [B, D, H, W, C] to outputs [B, K].

        Where columns are joined, it takes a list: volumes, and columns [B, F] as `columns.json` encodes them.
        """
        return load_network(self.folder.network)

    def predict(
        self, paths: AnyPath | Sequence[AnyPath], *, batch_size: int | None = None, tta: str = "none"
    ) -> ScanPredictions:
        """Return predictions for new scans, prepared and scored as by `voxlift-predict`.

        Args:
            paths: Image files, folders or tables, one or several; subjects and channels are found as by
                `voxlift-predict input=`. A model that joins columns needs a table that has them.
            batch_size: Scans scored at once; None: as in training.
            tta: Test-time augmentation: `none`, `flips`, `half_turns` or `shifts`.

        Raises:
            ManifestError: A path holds no scan.
            SettingsError: The run was trained without the mirroring that `tta=flips` needs.
        """
        from voxlift.app.inference.predictor import Predictor

        sources = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        scans = [scan for source in sources for scan in find_input_scans(Path(source), self._ensemble)]
        predictor = Predictor(
            ensemble=self._ensemble,
            networks=self._networks,
            views=build_member_views(self._ensemble, tta),
            batch_size=batch_size or self.settings.trainer.batch_size,
        )
        rows = [row for batch in predictor.predict(enumerate(scans, start=1)) for row in batch]
        task = self._ensemble.task
        return ScanPredictions(
            classes=self.classes,
            subjects=tuple(row["subject"] for row in rows),
            images=tuple(row["image"] for row in rows),
            probabilities=self._table(rows, "p_"),
            calibrated=self._table(rows, "calibrated_"),
            decisions=tuple("; ".join(task.decided_names(row, self.classes)) for row in rows),
            warnings=tuple(row["warning"] for row in rows),
            reasons=tuple(row["reason"] for row in rows),
            values=np.empty(0)
            if self._ensemble.task.has_probabilities
            else self._table(rows, "prediction")[:, 0],
        )

    def explain(
        self,
        path: AnyPath,
        *,
        class_name: str | None = None,
        method: str = "gradcam",
        layer: str | None = None,
    ) -> ScanMap:
        """Return the map of the network's evidence in one scan, as by `voxlift-predict explain=`.

        Args:
            path: An image file, or a folder or table with a single scan.
            class_name: The class to explain, None: the predicted one; the grade, whose lower cut is
                explained; or the finding, None: the most probable one.
            method: `gradcam`, `occlusion`, or `both`: Grad-CAM with its agreement with occlusion.
            layer: For Grad-CAM, the name of a spatial layer; None is the last convolution.

        Raises:
            SettingsError: The class is unknown, or there is more than one scan.
            VolumeError: The scan cannot be used.
            ValueError: The network has no such layer.
        """
        from voxlift.app.inference.maps import explain_scan, refuse_gradcam_of_linear

        refuse_gradcam_of_linear(self._ensemble, method)
        if class_name is not None and class_name not in self.classes:
            raise SettingsError(
                f"Expected one of the classes {', '.join(self.classes)}; received {class_name}."
            )
        scan = self._prepare(path)
        if scan.voxels is None or scan.affine is None:
            raise VolumeError(scan.reason)
        views = build_member_views(self._ensemble, "none")
        cells = [scan.scan.cells]
        scores = score_batch(self._ensemble, self._networks, scan.voxels[None], views, cells=cells)
        task, asked = self._ensemble.task, None if class_name is None else self.classes.index(class_name)
        output = task.map_output(scores.predictions[0], scores.decisions[0], asked)
        found = explain_scan(scan, self._ensemble, self._networks, label=output, method=method, layer=layer)
        return ScanMap(
            heat=found.heat,
            affine=scan.affine,
            class_name=task.map_title(output, scores.predictions[0], self.classes)[0],
            method=found.method,
            agreement=found.agreement,
            source=scan.scan.images[0],
            prefer=self._ensemble.preprocess.prefer,
        )

    @cached_property
    def _ensemble(self) -> Ensemble:
        return open_ensemble([str(self.folder.path)])

    @cached_property
    def _networks(self) -> tuple[Any, ...]:
        return load_networks(self._ensemble)

    @property
    def _probability_columns(self) -> tuple[str, ...]:
        return ("prediction", *(f"p_{name}" for name in self.classes))

    def _table(self, rows: Sequence[dict[str, Any]], prefix: str) -> NDArray[np.float64]:
        """Return the columns that begin with a prefix as [N, K] float64, nan where a row was not scored."""
        known = [prefix] if prefix == "prediction" else [f"{prefix}{name}" for name in self.classes]
        columns = [column for column in known if all(column in row for row in rows)]
        values = [[np.nan if row["reason"] else row[column] for column in columns] for row in rows]
        return np.array(values, np.float64).reshape(len(rows), len(columns))

    def _prepare(self, path: AnyPath) -> PreparedScan:
        scans = find_input_scans(Path(path), self._ensemble)
        if len(scans) != 1:
            raise SettingsError(f"{path}: expected one scan, found {len(scans)}; give the path of one image.")
        shape = volume_shape(self._networks[0])
        return prepare_scan(scans[0], self._ensemble.preprocess, shape=shape)


def open_run(path: AnyPath) -> Run:
    """Return a finished run.

    Args:
        path: Its folder, which `voxlift-train` names in its last line.

    Raises:
        SettingsError: The folder is not a finished run of a network.
    """
    return Run(open_finished_run(os.fspath(path)))
