"""The best epoch's weights, and early stopping."""

from __future__ import annotations

import logging

import keras
import numpy as np
from numpy.typing import NDArray

log = logging.getLogger("voxlift")


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
