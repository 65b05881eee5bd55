"""Where a training stands, and what its callbacks must remember over a kill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from numpy.typing import NDArray

from voxlift.app.training.checkpoints import Phase, Position


class StatefulCallback(keras.callbacks.Callback):
    """A callback whose state is part of a checkpoint, as JSON values."""

    def get_state(self) -> dict[str, Any]:
        """What must not be forgotten."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take up what `memory` gave before the kill."""


class StepCounter(StatefulCallback):
    """Counts epochs and batches. Stands first among callbacks: the others read `position`."""

    def __init__(self) -> None:
        super().__init__()
        self.position = Position()
        self.phase = Phase(0, 0)
        self.running_means: Sequence[NDArray[Any]] = ()

    def enter(self, phase: Phase, running_means: Sequence[NDArray[Any]] = ()) -> None:
        """Begin a phase; with the running means of the epoch that it goes on with."""
        self.phase = phase
        self.running_means = running_means if phase.skip else ()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Take up the epoch where it was broken off; Keras has just set its means to zero."""
        self.position = Position(epoch, self.phase.skip if epoch == self.phase.first else 0)
        for variable, value in zip(self.model.metrics_variables, self.running_means, strict=False):
            variable.assign(value)
        self.running_means = ()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - as above
        """One batch further."""
        self.position = Position(self.position.epoch, self.position.step + 1)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - as above
        """The epoch is whole."""
        self.position = Position(epoch + 1)
