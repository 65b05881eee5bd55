"""TensorBoard: curves over epochs, where a step's time goes, and what the network is shown."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import LoggerSettings
from voxlift.app.training.callbacks.stateful import StatefulCallback

if TYPE_CHECKING:
    import tensorflow as tf


PICTURES = 8  # examples of the first batch


class WriteTensorBoard(StatefulCallback):
    """Writes the logs of each epoch as curves.

    Training and validation share a graph, and so do the seconds of a step that input and computing take: each
    curve has a writer of its own, which TensorBoard shows as a run.

    Args:
        folder: For the event files.
        batches: Of the training; the first one is shown as pictures.
    """

    def __init__(self, folder: Path, batches: tf.data.Dataset) -> None:
        super().__init__()
        self.folder, self.batches = folder, batches
        self.writers: dict[str, Any] = {}
        self.has_pictures = False

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Write pictures of the first batch, once per training."""
        if self.has_pictures:
            return
        import tensorflow as tf

        voxels = next(iter(self.batches.take(1)))[0][:PICTURES].numpy()
        with self._writer("train").as_default(step=0):
            tf.summary.image(
                "first batch, projected along depth", project_batch(voxels), max_outputs=PICTURES
            )
        self.has_pictures = True

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Add a point to each curve."""
        import tensorflow as tf

        for name, value in (logs or {}).items():
            run, tag = curve_of(name)
            with self._writer(run).as_default(step=epoch):
                tf.summary.scalar(tag, float(value))
        for writer in self.writers.values():
            writer.flush()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Close the files; a later phase opens new ones."""
        for writer in self.writers.values():
            writer.close()
        self.writers = {}

    def finish(self) -> None:
        """Do nothing: no file is open."""
        self.on_train_end()

    def get_state(self) -> dict[str, Any]:
        """Return whether the pictures were written."""
        return {"has_pictures": self.has_pictures}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore whether the pictures were written."""
        self.has_pictures = bool(state["has_pictures"])

    def _writer(self, run: str) -> Any:  # noqa: ANN401 - untyped TensorFlow
        import tensorflow as tf

        if run not in self.writers:
            self.writers[run] = tf.summary.create_file_writer(str(self.folder / run))
        return self.writers[run]


def curve_of(name: str) -> tuple[str, str]:
    """Return the TensorBoard run and the graph for a quantity of the logs.

    >>> curve_of("val_auc"), curve_of("loss"), curve_of("input_seconds")
    (('validation', 'auc'), ('train', 'loss'), ('input', 'seconds of an epoch'))
    """
    if name.startswith("val_"):
        return "validation", name.removeprefix("val_")
    if name in {"input_seconds", "compute_seconds"}:
        return name.removesuffix("_seconds"), "seconds of an epoch"
    return "train", name


def project_batch(voxels: NDArray[Any]) -> NDArray[np.float32]:
    """Return pictures [B, H, W, 1] in 0..1 of the first channel of a batch, each scaled by itself.

    Args:
        voxels: [B, D, H, W, C], shown as the maximum along depth, or [B, H, W, C].
    """
    wide = voxels[..., :1].astype(np.float32)
    flat = wide.max(axis=1) if wide.ndim == 5 else wide  # [B, H, W, 1]
    low, high = flat.min(axis=(1, 2, 3), keepdims=True), flat.max(axis=(1, 2, 3), keepdims=True)
    return np.asarray((flat - low) / np.maximum(high - low, 1e-6))


MAX_LENGTH = 500  # characters of a parameter that every MLflow server accepts


class WriteMlflow(StatefulCallback):
    """Writes the settings once and the logs of each epoch; a resumed training continues the same MLflow run.

    Args:
        logger: `mlflow_uri` (a server or a folder; None: as MLflow decides) and the name of the experiment.
        name: Of the run.
        params: The settings, flat.
    """

    def __init__(self, logger: LoggerSettings, *, name: str, params: Mapping[str, Any]) -> None:
        super().__init__()
        self.logger, self.name, self.params = logger, name, params
        self.run_id: str | None = None
        self.client: Any = None

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Start the MLflow run, or continue the one that was started before."""
        if self.client is not None:
            return
        mlflow = importlib.import_module("mlflow")
        self.client = mlflow.MlflowClient(tracking_uri=self.logger.mlflow_uri)
        if self.run_id is None:
            self.run_id = self._create_run()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Add a point to each curve."""
        for name, value in (logs or {}).items():
            if math.isfinite(value):
                self.client.log_metric(self.run_id, name, float(value), step=epoch)

    def get_state(self) -> dict[str, Any]:
        """Return the identifier of the MLflow run."""
        return {"run_id": self.run_id}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the identifier of the MLflow run."""
        self.run_id = state["run_id"]

    def finish(self) -> None:
        """Mark the MLflow run as finished."""
        if self.client is not None:
            self.client.set_terminated(self.run_id)

    def _create_run(self) -> str:
        found = self.client.get_experiment_by_name(self.logger.mlflow_experiment)
        experiment = (
            found.experiment_id if found else self.client.create_experiment(self.logger.mlflow_experiment)
        )
        run = self.client.create_run(experiment, run_name=self.name)
        for key, value in self.params.items():
            self.client.log_param(run.info.run_id, key, str(value)[:MAX_LENGTH])
        return str(run.info.run_id)
