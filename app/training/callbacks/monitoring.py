"""Validation and early stopping, and what else is watched: loss, loss scale, learning rate, input."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import NDArray

from voxlift.app.errors import UserError
from voxlift.app.training.callbacks.stateful import StatefulCallback, StepCounter
from voxlift.app.training.checkpoints import Arrays, Position
from voxlift.models.optimizers import averaged_weights

if TYPE_CHECKING:
    import tensorflow as tf


log = logging.getLogger("voxlift")

MAX_NAMED = 16  # subjects in a message
BOUND = 0.1  # input is the bottleneck above this share of a step spent waiting for it


class StopOnNonFinite(keras.callbacks.Callback):
    """Stops training at the first batch whose loss is not finite, and names its subjects.

    The running mean of Keras over an epoch is finite up to that batch, and never after it.

    Args:
        counter: Counts the batches; comes before this one among the callbacks.
        name_subjects: Returns the subjects of the batch at a position.
    """

    def __init__(self, counter: StepCounter, name_subjects: Callable[[Position], Sequence[str]]) -> None:
        super().__init__()
        self.counter, self.name_subjects = counter, name_subjects

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Check the running mean."""
        if np.isfinite((logs or {}).get("loss", 0.0)):
            return
        epoch, step = self.counter.position.epoch, self.counter.position.step - 1
        # A step may spoil the weights although its own loss is finite: max-pooling can hide NaNs.
        before = f" ({self._named(Position(epoch, step - 1))} in the batch before)" if step else ""
        raise UserError(
            f"The loss is not finite at batch {step + 1} of epoch {epoch + 1}: training stopped. "
            f"Subjects of the batch: {self._named(Position(epoch, step))}{before}. "
            "Check these volumes; a lower optimizer.learning_rate or precision=float32 often helps."
        )

    def _named(self, at: Position) -> str:
        names = list(self.name_subjects(at))
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        return f"{', '.join(names[:MAX_NAMED])}{more}"


class WatchLossScale(StatefulCallback):
    """Adds `loss_scale` and `skipped_steps` to the logs of each epoch where the loss is scaled (float16)."""

    def __init__(self, counter: StepCounter) -> None:
        super().__init__()
        self.counter = counter
        self.begun = 0  # steps that had been taken when the epoch began

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Record the steps so far, unless the epoch is resumed."""
        if self.counter.position.step == 0:
            self.begun = self._taken()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Add both: Keras does not count the steps that it skips."""
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
        """Return the steps before this epoch."""
        return {"begun": self.begun}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the steps before this epoch."""
        self.begun = int(state["begun"])

    def _taken(self) -> int:
        optimizer = self.model.optimizer
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        return int(keras.ops.convert_to_numpy(inner._iterations))  # noqa: SLF001 - batches, also where gradients are accumulated


class LogLearningRate(keras.callbacks.Callback):
    """Adds `learning_rate` at the end of each epoch to the logs."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Read it from the schedule."""
        if logs is not None:
            logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))


class InputClock:
    """Measures the seconds that the reader of a data set waits for batches."""

    def __init__(self) -> None:
        import tensorflow as tf

        with tf.device("CPU:0"):
            self._waited = tf.Variable(0.0, dtype=tf.float64, trainable=False)

    @property
    def seconds(self) -> float:
        """Seconds waited since the clock was made."""
        return float(self._waited.numpy())

    def attach(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Return the same batches with the wait for each measured.

        `zip` reads its parts one after the other, so the first moment is before the batch is read, and the
        last after it. Nothing may be prefetched after this point, or the wait of another thread is measured.
        """
        import tensorflow as tf

        # tf.timestamp is not allowed with deterministic operations.
        moments = tf.data.Dataset.counter().map(
            lambda _: tf.numpy_function(time.perf_counter, [], tf.float64)
        )

        def count(asked: tf.Tensor, batch: Any, answered: tf.Tensor) -> Any:  # noqa: ANN401 - the elements of any data set
            with tf.control_dependencies([self._waited.assign_add(answered - asked)]):
                return tf.nest.map_structure(tf.identity, batch)

        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False
        return tf.data.Dataset.zip((moments, batches, moments)).map(count).with_options(options)


class SplitStepTime(keras.callbacks.Callback):
    """Adds `input_seconds` and `compute_seconds` per epoch to the logs, and logs a bottleneck at the input.

    The first batch of a fit is left out: it fills the buffers and compiles.
    """

    def __init__(self, clock: InputClock, *, batch_size: int) -> None:
        super().__init__()
        self.clock, self.batch_size = clock, batch_size
        self.is_first = True
        self.has_logged = False
        self.started = self.waited = self.elapsed = 0.0
        self.batches = 0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Mark the next batch as the one that compiles."""
        self.is_first = True

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - as above
        """Start the clocks of the epoch."""
        self._begin()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - as above
        """Count the batch, or start after it."""
        if self.is_first:
            self.is_first = False
            self._begin()
            return
        self.batches += 1
        self.elapsed = time.perf_counter() - self.started

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - as above
        """Split the time of the epoch."""
        if logs is None or not self.batches:
            return
        waited = min(self.clock.seconds - self.waited, self.elapsed)
        logs |= {"input_seconds": round(waited, 4), "compute_seconds": round(self.elapsed - waited, 4)}
        if not self.has_logged and waited > BOUND * self.elapsed:
            self.has_logged = True
            log.info("%s", describe_bottleneck(waited, self.elapsed, examples=self.batches * self.batch_size))

    def _begin(self) -> None:
        self.started, self.waited = time.perf_counter(), self.clock.seconds
        self.elapsed, self.batches = 0.0, 0


def describe_bottleneck(waited: float, elapsed: float, *, examples: int) -> str:
    """Return a sentence that input is slower than compute, with both rates.

    >>> describe_bottleneck(6.0, 10.0, examples=100)
    'The input pipeline is the bottleneck: 60 % of the training time is spent waiting for it (it delivers 10 \
examples a second, the network could take 25). Fewer augmentations, a faster disk or more cores help.'
    """
    return (
        f"The input pipeline is the bottleneck: {100 * waited / elapsed:.0f} % of the training time is spent "
        f"waiting for it (it delivers {examples / elapsed:.3g} examples a second, the network could take "
        f"{examples / max(elapsed - waited, 1e-9):.3g}). Fewer augmentations, a faster disk or more cores "
        "help."
    )


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
