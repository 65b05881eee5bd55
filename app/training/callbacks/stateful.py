"""Where a training stands, and what its callbacks must remember over a kill."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from voxlift.app.training.checkpoints import (
    Arrays,
    Checkpoint,
    Checkpoints,
    Phase,
    Position,
    gather_arrays,
)
from voxlift.models.optimizers import averaged_weights


class StatefulCallback(keras.callbacks.Callback):
    """A callback whose state is part of a checkpoint, as JSON values."""

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


log = logging.getLogger("voxlift")


class KeepBest(StatefulCallback):
    """Keeps the weights of the best epoch; stops after `patience` epochs without a better one (0: never).

    Ties in the monitored metric (AUC is often 1.0 on few volumes) go to the lower validation loss.
    """

    def __init__(self, monitor: str, *, patience: int) -> None:
        super().__init__()
        self.monitor = monitor
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
        metric = loss if self.monitor == "loss" else logs.get(f"val_{self.monitor}", -np.inf)
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


class SaveCheckpoints(StatefulCallback):
    """Writes a checkpoint after each epoch and, unless `steps` is 0, every `steps` batches."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        *,
        counter: StepCounter,
        keep: KeepBest,
        stateful: Sequence[StatefulCallback],
        steps: int = 0,
        steps_per_epoch: int = 0,
    ) -> None:
        super().__init__()
        self.checkpoints, self.counter, self.keep, self.steps = checkpoints, counter, keep, steps
        self.steps_per_epoch = steps_per_epoch
        self.stateful = tuple(stateful)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Save within an epoch; after its last batch the end of the epoch saves."""
        step = self.counter.position.step
        if self.steps and step % self.steps == 0 and step < self.steps_per_epoch:
            self._save()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - as above
        """Save at the end of the epoch."""
        self._save()

    def _save(self) -> None:
        checkpoint = Checkpoint(
            self.counter.position,
            gather_arrays(self.model),
            collect_states(self.stateful),
            self.keep.arrays(),
        )
        self.checkpoints.save(checkpoint, best_epoch=self.keep.best_epoch)


def collect_states(stateful: Sequence[StatefulCallback]) -> dict[str, Any]:
    """Return the states of all callbacks, by the name of their class."""
    return {type(callback).__name__: callback.get_state() for callback in stateful}


def restore_states(stateful: Sequence[StatefulCallback], state: dict[str, Any]) -> None:
    """Restore what `collect_states` returned; a callback that was not there before keeps its new state."""
    for callback in stateful:
        if type(callback).__name__ in state:
            callback.set_state(state[type(callback).__name__])
