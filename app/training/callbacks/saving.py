"""Checkpoints while a training goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from voxlift.app.training.callbacks.best import KeepBest
from voxlift.app.training.callbacks.place import Place, Remembering
from voxlift.app.training.checkpoints import Checkpoint, Checkpoints
from voxlift.app.training.state import gather_arrays


class SaveCheckpoints(Remembering):
    """Writes a checkpoint after each epoch, and every `steps` batches if asked. The last callback."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        *,
        place: Place,
        keep: KeepBest,
        remembering: Sequence[Remembering],
        steps: int = 0,
        steps_per_epoch: int = 0,
    ) -> None:
        super().__init__()
        self.checkpoints, self.place, self.keep, self.steps = checkpoints, place, keep, steps
        self.steps_per_epoch = steps_per_epoch
        self.remembering = tuple(remembering)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Save within an epoch, where that was asked for; its last batch is saved with the epoch's end."""
        step = self.place.position.step
        if self.steps and step % self.steps == 0 and step < self.steps_per_epoch:
            self._save()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - as above
        """Save the whole epoch."""
        self._save()

    def _save(self) -> None:
        checkpoint = Checkpoint(
            self.place.position, gather_arrays(self.model), recollect(self.remembering), self.keep.arrays()
        )
        self.checkpoints.save(checkpoint, best_epoch=self.keep.best_epoch)


def recollect(remembering: Sequence[Remembering]) -> dict[str, Any]:
    """What all callbacks remember, by the name of their class."""
    return {type(callback).__name__: callback.memory() for callback in remembering}


def recall_all(remembering: Sequence[Remembering], state: dict[str, Any]) -> None:
    """The inverse of `recollect`; a callback that was not there before keeps its fresh state."""
    for callback in remembering:
        if type(callback).__name__ in state:
            callback.recall(state[type(callback).__name__])
