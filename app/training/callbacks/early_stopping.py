"""Validation after each epoch, the weights of the best epoch, and early stopping."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from voxlift.app.training.callbacks.stateful import StatefulCallback
from voxlift.app.training.checkpoints import (
    Arrays,
)
from voxlift.models.optimizers import averaged_weights

log = logging.getLogger("voxlift")


class EarlyStopping(StatefulCallback):
    """Keeps the weights of the best epoch, and stops after `patience` epochs without a better one (0: never).

    Ties in the monitored metric (AUC is often 1.0 on few volumes) go to the lower validation loss.
    """

    state_key = "KeepBest"  # its name in checkpoints of version 0.1

    def __init__(self, monitor: str, *, patience: int, lower_is_better: bool = False) -> None:
        super().__init__()
        self.monitor = monitor
        self.sign = -1.0 if lower_is_better else 1.0
        self.patience = patience
        self.best: tuple[float, float] = (-np.inf, -np.inf)
        self.best_epoch = -1
        self.epochs_run = 0
        self.stopped = False
        self.weights: list[NDArray[np.float32]] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Compare this epoch with the best one so far."""
        standing = self._standing(logs or {})
        self.epochs_run += 1
        if standing > self.best:
            self.best, self.best_epoch = standing, epoch
            with averaged_weights(self.model):  # the weights that were scored
                self.weights = self.model.get_weights()
        elif self.patience and epoch - self.best_epoch >= self.patience:
            log.info(
                "No better %s for %d epochs: stopped after epoch %d", self.monitor, self.patience, epoch + 1
            )
            self.stopped = self.model.stop_training = True

    def _standing(self, logs: dict[str, float]) -> tuple[float, float]:
        """Return (metric, minus loss): larger is better, and NaN is worse than any number."""
        loss = -logs.get("val_loss", np.inf)
        metric = loss if self.monitor == "loss" else self.sign * logs.get(f"val_{self.monitor}", np.nan)
        return (-np.inf if np.isnan(metric) else metric, -np.inf if np.isnan(loss) else loss)

    def restore_best(self, network: Any) -> bool:  # noqa: ANN401 - untyped Keras
        """Give the network its best weights, and return whether there are any."""
        if self.weights:
            network.set_weights(self.weights)
        return bool(self.weights)

    def arrays(self) -> Arrays:
        """Return the best weights, named as in a checkpoint."""
        return {f"{number:05d}": weight for number, weight in enumerate(self.weights)}

    def load_best(self, arrays: Arrays) -> None:
        """Take the best weights from a checkpoint."""
        self.weights = [arrays[name] for name in sorted(arrays)]

    def get_state(self) -> dict[str, Any]:
        """Return the best scores and the patience used; the weights are saved separately."""
        names = ("best", "best_epoch", "epochs_run", "stopped")
        return {name: getattr(self, name) for name in names}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the best scores and the patience used."""
        self.best = (float(state["best"][0]), float(state["best"][1]))
        self.best_epoch, self.epochs_run = int(state["best_epoch"]), int(state["epochs_run"])
        self.stopped = bool(state["stopped"])


class ScoreValidation(keras.callbacks.Callback):
    """Adds `val_loss` and the task's other monitors, such as `val_auc`, per volume, to each epoch's logs.

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
