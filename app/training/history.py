"""The history file: one row per epoch."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import keras


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
