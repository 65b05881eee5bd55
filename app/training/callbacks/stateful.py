"""The position of a training, and the states of its callbacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from numpy.typing import NDArray

from voxlift.app.config import SettingsError
from voxlift.app.errors import shorten
from voxlift.app.training.checkpoints import (
    Phase,
    Position,
)


class StatefulCallback(keras.callbacks.Callback):
    """A callback whose state is part of a checkpoint, as JSON values."""

    state_key = ""  # name of the state in a checkpoint; empty: the name of the class

    def get_state(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` returned before the training was stopped."""


class StepCounter(StatefulCallback):
    """Counts epochs and batches. It is the first of the callbacks: the others read `position`."""

    def __init__(self) -> None:
        super().__init__()
        self.position = Position()
        self.phase = Phase(0, 0)
        self.running_means: Sequence[NDArray[Any]] = ()

    def enter(self, phase: Phase, running_means: Sequence[NDArray[Any]] = ()) -> None:
        """Begin a phase, with the running means of an epoch that is resumed."""
        self.phase = phase
        self.running_means = running_means if phase.skip else ()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Start at the resumed batch, and restore the means, which Keras has just set to zero."""
        self.position = Position(epoch, self.phase.skip if epoch == self.phase.first else 0)
        for variable, value in zip(self.model.metrics_variables, self.running_means, strict=False):
            variable.assign(value)
        self.running_means = ()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - as above
        """Count the batch."""
        self.position = Position(self.position.epoch, self.position.step + 1)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - as above
        """Count the epoch."""
        self.position = Position(epoch + 1)


def collect_states(stateful: Sequence[StatefulCallback]) -> dict[str, Any]:
    """Return the states of all callbacks, by the name of their class."""
    return {_state_key(callback): callback.get_state() for callback in stateful}


def restore_states(stateful: Sequence[StatefulCallback], state: dict[str, Any]) -> None:
    """Restore what `collect_states` returned; a callback that was not there before keeps its new state.

    Raises:
        SettingsError: The values of a callback are not as it writes them.
    """
    for callback in stateful:
        key = _state_key(callback)
        try:
            if key in state:
                callback.set_state(state[key])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise SettingsError(
                f"The newest checkpoint is damaged: its values of {key} cannot be read ({shorten(error)})."
                " Remove the file, so that the one before it is used."
            ) from error


def _state_key(callback: StatefulCallback) -> str:
    return callback.state_key or type(callback).__name__
