"""The records of a training: progress bar, `history.csv`, TensorBoard, MLflow."""

from __future__ import annotations

import importlib
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import keras
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress, TaskID

from voxlift.app.config import LoggerSettings
from voxlift.app.files import write_rows
from voxlift.app.progress import Phase, build_progress, has_bars, pulse
from voxlift.app.training.callbacks.stateful import StatefulCallback, StepCounter

if TYPE_CHECKING:
    import tensorflow as tf


log = logging.getLogger("voxlift")


class ShowProgress(keras.callbacks.Callback):
    """One bar over all steps of all epochs, with time left and the scores of the last epoch.

    It is a context manager around the fits, so that one bar serves several and is always closed.
    """

    def __init__(self, counter: StepCounter, *, epochs: int, steps: int) -> None:
        super().__init__()
        self.counter, self.epochs, self.steps = counter, epochs, steps
        self.progress: Progress = build_progress()
        self.task: TaskID | None = None
        self.epoch = 0
        self.phase: Phase | None = None

    def __enter__(self) -> Self:
        self.phase = pulse.enter("Compiling, and reading the first batch")
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()
        if self.phase is not None:
            pulse.leave(self.phase)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Open the bar, unless an earlier phase has."""
        if self.task is None:
            done = self.counter.phase.first * self.steps + self.counter.phase.skip
            if self.phase is not None:
                pulse.leave(self.phase)
            self.progress.start()
            self.phase = pulse.enter("Training, batches", is_live=has_bars())
            self.phase.update(done, self.epochs * self.steps)
            self.task = self.progress.add_task(
                "Training", total=self.epochs * self.steps, completed=done, note=""
            )

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - as above
        """Advance the bar."""
        self._update(advance=1)
        if self.phase is not None:
            self.phase.update(self._done(batch), self.epochs * self.steps)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Show the scores beside the bar, and log them where there is no terminal."""
        note = _format_scores(logs or {})
        self._update(note=f"epoch {epoch + 1}/{self.epochs}  {note}")
        if self.progress.disable and _is_logged(epoch + 1, self.epochs):
            log.info("epoch %d/%d  %s", epoch + 1, self.epochs, note)

    def _done(self, batch: int) -> int:
        return (self.epoch * self.steps) + batch + 1

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - as above
        """Know the epoch that batches belong to."""
        self.epoch = epoch

    def _update(self, **changes: Any) -> None:  # noqa: ANN401 - what rich's update takes
        if self.task is not None:
            self.progress.update(self.task, **changes)


def _format_scores(logs: dict[str, float]) -> str:
    """Return the losses, and the first of the task's other monitors."""
    shown = ["loss", *[name for name in logs if name.startswith("val_")][:2]]
    return "  ".join(f"{name} {logs[name]:.3f}" for name in shown if name in logs)


def _is_logged(epoch: int, epochs: int) -> bool:
    """Return whether an epoch is one of about ten that are logged."""
    return epoch in {1, epochs} or epoch % max(1, epochs // 10) == 0


class WriteHistory(StatefulCallback):
    """Writes one row per epoch to a CSV file, all rows each time, so that a killed run keeps its rows."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self.started = 0.0
        self.spent = 0.0  # seconds of an epoch before the training was stopped

    @property
    def seconds(self) -> float:
        """Seconds of all epochs."""
        return sum(float(row["seconds"]) for row in self.rows)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Start the clock."""
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write the row of the epoch."""
        spent, self.spent = self.spent + time.perf_counter() - self.started, 0.0
        values = {name: float(value) for name, value in (logs or {}).items()}
        self.rows.append({"epoch": epoch + 1, **values, "seconds": round(spent, 3)})
        write_rows(self.path, self.rows)
        self.started = time.perf_counter()

    def get_state(self) -> dict[str, Any]:
        """Return all rows, and the seconds spent on the current epoch."""
        return {"rows": self.rows, "spent": self.spent + time.perf_counter() - self.started}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the rows of the checkpoint; those of epochs that are trained again are dropped."""
        self.rows, self.spent = list(state["rows"]), float(state["spent"])
        # Runs of earlier versions counted from 0.
        self.rows = [{**row, "epoch": number} for number, row in enumerate(self.rows, start=1)]
        if self.rows:
            write_rows(self.path, self.rows)


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

        inputs = next(iter(self.batches.take(1)))[0]
        images = inputs[0] if isinstance(inputs, tuple) else inputs  # beside columns of the table
        voxels = images[:PICTURES].numpy()
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
            with self._writer(run).as_default(step=epoch + 1):
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
                self.client.log_metric(self.run_id, name, float(value), step=epoch + 1)

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
