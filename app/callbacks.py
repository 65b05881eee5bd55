"""What happens around epochs: validation volumes are scored, the best weights kept, progress shown."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress, TaskID

from app.progress import build_progress

log = logging.getLogger("voxlift")


class ScoreVolumes(keras.callbacks.Callback):
    """Adds `val_auc`, `val_loss`, `val_accuracy`, `val_balanced_accuracy`, per volume, to each epoch's logs.

    Slice models are scored per volume too, so that both kinds select their best epoch by the same measure.
    """

    def __init__(self, score: Callable[[], dict[str, float]]) -> None:
        super().__init__()
        self.score = score

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Score the validation volumes."""
        if logs is not None:
            logs.update({f"val_{name}": value for name, value in self.score().items()})


class KeepBest(keras.callbacks.Callback):
    """Keeps the weights of the best epoch; stops when `patience` epochs brought no better one (0: never).

    Ties in the monitored metric (AUC is often 1.0 on few volumes) go to the lower validation loss.
    """

    def __init__(self, monitor: str, *, patience: int) -> None:
        super().__init__()
        self.monitor = monitor
        self.patience = patience
        self.best: tuple[float, float] = (-np.inf, -np.inf)
        self.best_epoch = -1
        self.epochs_run = 0
        self.weights: list[NDArray[np.float32]] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Compare this epoch with the best one so far."""
        standing = self._standing(logs or {})
        self.epochs_run += 1
        if standing > self.best:
            self.best, self.best_epoch = standing, epoch
            self.weights = self.model.get_weights()
        elif self.patience and epoch - self.best_epoch >= self.patience:
            log.info(
                "No better %s for %d epochs: stopped after epoch %d", self.monitor, self.patience, epoch + 1
            )
            self.model.stop_training = True

    def _standing(self, logs: dict[str, float]) -> tuple[float, float]:
        """(metric, minus loss), larger is better; what is not a number is worse than anything."""
        loss = -logs.get("val_loss", np.inf)
        metric = loss if self.monitor == "loss" else logs.get(f"val_{self.monitor}", -np.inf)
        return (-np.inf if np.isnan(metric) else metric, -np.inf if np.isnan(loss) else loss)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Put the best weights back."""
        if self.weights:
            self.model.set_weights(self.weights)


class StopOnNonFinite(keras.callbacks.Callback):
    """Ends training at the first loss that is not finite; the best weights so far stay."""

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Look at the running loss."""
        if not np.isfinite((logs or {}).get("loss", 0.0)):
            log.info(
                "The loss is not finite at step %d: stopped. A lower optimizer.learning_rate often helps.",
                batch,
            )
            self.model.stop_training = True


class WriteHistory(keras.callbacks.Callback):
    """Appends one row per epoch to a CSV file, flushed, so that a killed run keeps what it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.started = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Start the clock."""
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write the epoch's row."""
        row = {"epoch": epoch, **(logs or {}), "seconds": round(time.perf_counter() - self.started, 3)}
        is_new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            if is_new:
                writer.writeheader()
            writer.writerow(row)


class ShowProgress(keras.callbacks.Callback):
    """One bar over all steps of all epochs, with time left and the last epoch's scores beside it."""

    def __init__(self, *, epochs: int, steps: int, first_epoch: int = 0) -> None:
        super().__init__()
        self.epochs, self.steps, self.first_epoch = epochs, steps, first_epoch
        self.progress: Progress = build_progress()
        self.task: TaskID | None = None

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Open the bar."""
        self.progress.start()
        self.task = self.progress.add_task(
            "Training", total=self.epochs * self.steps, completed=self.first_epoch * self.steps, note=""
        )

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - as above
        """Advance the bar."""
        self._update(advance=1)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Show the scores beside the bar, and in the log where there is no terminal."""
        note = _spoken(logs or {})
        self._update(note=f"epoch {epoch + 1}/{self.epochs}  {note}")
        if self.progress.disable and _is_worth_a_line(epoch + 1, self.epochs):
            log.info("epoch %d/%d  %s", epoch + 1, self.epochs, note)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Close the bar."""
        self.progress.stop()

    def _update(self, **changes: Any) -> None:  # noqa: ANN401 - what rich's update takes
        if self.task is not None:
            self.progress.update(self.task, **changes)


def _spoken(logs: dict[str, float]) -> str:
    shown = ("loss", "val_loss", "val_auc")
    return "  ".join(f"{name} {logs[name]:.3f}" for name in shown if name in logs)


def _is_worth_a_line(epoch: int, epochs: int) -> bool:
    """About ten lines a run are enough for a log file."""
    return epoch in {1, epochs} or epoch % max(1, epochs // 10) == 0
