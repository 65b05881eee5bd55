"""What may go wrong in a training: a loss that is not finite, gradients that overflow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from voxlift.app.errors import UserError
from voxlift.app.training.callbacks.step_counter import StatefulCallback, StepCounter
from voxlift.app.training.checkpoints import Position

log = logging.getLogger("voxlift")

NAMED = 16  # subjects in a message


class StopOnNonFinite(keras.callbacks.Callback):
    """Ends training at the first batch whose loss is not finite, with its subjects named.

    The mean that Keras runs over an epoch is finite up to that very batch, and never after it.

    Args:
        counter: counts the batches; stands before this one among the callbacks.
        name_subjects: who is in the batch that begins at a position.
    """

    def __init__(self, counter: StepCounter, name_subjects: Callable[[Position], Sequence[str]]) -> None:
        super().__init__()
        self.counter, self.name_subjects = counter, name_subjects

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Look at the running mean."""
        if np.isfinite((logs or {}).get("loss", 0.0)):
            return
        epoch, step = self.counter.position.epoch, self.counter.position.step - 1
        # A step may spoil the weights while its own loss is finite: pooling swallows what is no number.
        before = f" ({self._named(Position(epoch, step - 1))} in the one before it)" if step else ""
        raise UserError(
            f"The loss is not finite at batch {step + 1} of epoch {epoch + 1}: training stopped. "
            f"The batch held {self._named(Position(epoch, step))}{before}. "
            "Look at these volumes; a lower optimizer.learning_rate or precision=float32 often helps."
        )

    def _named(self, at: Position) -> str:
        names = list(self.name_subjects(at))
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return f"{', '.join(names[:NAMED])}{more}"


class WatchLossScale(StatefulCallback):
    """Adds `loss_scale` and `skipped_steps` to each epoch's logs where the loss is scaled (float16)."""

    def __init__(self, counter: StepCounter) -> None:
        super().__init__()
        self.counter = counter
        self.begun = 0  # steps that had been taken when the epoch began

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Remember the steps so far, unless the epoch goes on after a kill."""
        if self.counter.position.step == 0:
            self.begun = self._taken()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """What Keras skipped is what it did not count."""
        optimizer = self.model.optimizer
        if logs is None or not hasattr(optimizer, "dynamic_scale"):
            return
        batches = self.params["steps"] + (self.counter.phase.skip if epoch == self.counter.phase.first else 0)
        scale = float(keras.ops.convert_to_numpy(optimizer.dynamic_scale))
        skipped = batches - (self._taken() - self.begun)
        logs |= {"loss_scale": scale, "skipped_steps": float(skipped)}
        if skipped:
            log.info(
                "Epoch %d: float16 gradients overflowed in %d of %d batches, now skipped; loss scale %g",
                epoch + 1,
                skipped,
                batches,
                scale,
            )

    def get_state(self) -> dict[str, Any]:
        """The steps before this epoch."""
        return {"begun": self.begun}

    def set_state(self, state: dict[str, Any]) -> None:
        """Count on from there."""
        self.begun = int(state["begun"])

    def _taken(self) -> int:
        optimizer = self.model.optimizer
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        return int(keras.ops.convert_to_numpy(inner._iterations))  # noqa: SLF001 - batches, also where gradients are accumulated


class LogLearningRate(keras.callbacks.Callback):
    """Adds `learning_rate`, as it stands at the epoch's end, to the logs."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Read it off the schedule."""
        if logs is not None:
            logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
