"""Validation volumes scored at each epoch's end."""

from __future__ import annotations

from collections.abc import Callable

import keras

from voxlift.app.training.averaging import averaged_weights


class ScoreVolumes(keras.callbacks.Callback):
    """Adds `val_auc`, `val_loss`, `val_accuracy`, `val_balanced_accuracy`, per volume, to each epoch's logs.

    Slice models are scored per volume too, so that both kinds select their best epoch by the same measure.
    Where the weights are averaged, it is the average that is scored.
    """

    def __init__(self, score: Callable[[], dict[str, float]]) -> None:
        super().__init__()
        self.score = score

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Score the validation volumes."""
        if logs is not None:
            with averaged_weights(self.model):
                logs.update({f"val_{name}": value for name, value in self.score().items()})
