"""The progress bar, and the table of epochs in `history.csv`."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Self

import keras
from rich.progress import Progress, TaskID

from voxlift.app.files import write_rows
from voxlift.app.progress import build_progress
from voxlift.app.training.callbacks.stateful import StatefulCallback, StepCounter

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Open the bar, unless an earlier phase has."""
        if self.task is None:
            phase = self.counter.phase
            self.progress.start()
            self.task = self.progress.add_task(
                "Training",
                total=self.epochs * self.steps,
                completed=phase.first * self.steps + phase.skip,
                note="",
            )

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - as above
        """Advance the bar."""
        self._update(advance=1)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Show the scores beside the bar, and log them where there is no terminal."""
        note = _format_scores(logs or {})
        self._update(note=f"epoch {epoch + 1}/{self.epochs}  {note}")
        if self.progress.disable and _is_logged(epoch + 1, self.epochs):
            log.info("epoch %d/%d  %s", epoch + 1, self.epochs, note)

    def _update(self, **changes: Any) -> None:  # noqa: ANN401 - what rich's update takes
        if self.task is not None:
            self.progress.update(self.task, **changes)


def _format_scores(logs: dict[str, float]) -> str:
    shown = ("loss", "val_loss", "val_auc")
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
        self.rows.append({"epoch": epoch, **values, "seconds": round(spent, 3)})
        write_rows(self.path, self.rows)
        self.started = time.perf_counter()

    def get_state(self) -> dict[str, Any]:
        """Return all rows, and the seconds spent on the current epoch."""
        return {"rows": self.rows, "spent": self.spent + time.perf_counter() - self.started}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the rows of the checkpoint; those of epochs that are trained again are dropped."""
        self.rows, self.spent = list(state["rows"]), float(state["spent"])
        if self.rows:
            write_rows(self.path, self.rows)
