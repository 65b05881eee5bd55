"""The history file: one row per epoch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from voxlift.app.files import write_rows
from voxlift.app.training.callbacks.place import Remembering


class WriteHistory(Remembering):
    """Writes one row per epoch to a CSV file, whole each time, so that a killed run keeps what it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self.started = 0.0
        self.spent = 0.0  # seconds of an epoch before it was broken off

    @property
    def seconds(self) -> float:
        """What all epochs took."""
        return sum(float(row["seconds"]) for row in self.rows)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Start the clock."""
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write the epoch's row."""
        spent, self.spent = self.spent + time.perf_counter() - self.started, 0.0
        values = {name: float(value) for name, value in (logs or {}).items()}
        self.rows.append({"epoch": epoch, **values, "seconds": round(spent, 3)})
        write_rows(self.path, self.rows)
        self.started = time.perf_counter()

    def memory(self) -> dict[str, Any]:
        """All rows, and the time spent on the epoch that has begun."""
        return {"rows": self.rows, "spent": self.spent + time.perf_counter() - self.started}

    def recall(self, memory: dict[str, Any]) -> None:
        """Go on after the checkpoint's rows; those of epochs that will be trained again are dropped."""
        self.rows, self.spent = list(memory["rows"]), float(memory["spent"])
        if self.rows:
            write_rows(self.path, self.rows)
