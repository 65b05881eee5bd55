"""Where a step's time goes: waiting for input, or computing."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    import tensorflow as tf


log = logging.getLogger("voxlift")

BOUND = 0.1  # share of a step spent waiting above which the input is called the bottleneck


class InputClock:
    """Seconds that whoever draws batches from a data set has waited for them."""

    def __init__(self) -> None:
        import tensorflow as tf

        with tf.device("CPU:0"):
            self._waited = tf.Variable(0.0, dtype=tf.float64, trainable=False)

    @property
    def seconds(self) -> float:
        """Since the clock was made."""
        return float(self._waited.numpy())

    def attach(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """The same batches, timed: the moment is taken before and after each is drawn.

        `zip` draws from its parts in turn, so that the first moment is that of the request and the last that
        of the answer. Nothing may be prefetched behind this point, or the wait of another thread is measured.
        """
        import tensorflow as tf

        # tf.timestamp would be refused where every operation must repeat exactly.
        moments = tf.data.Dataset.counter().map(
            lambda _: tf.numpy_function(time.perf_counter, [], tf.float64)
        )

        def count(asked: tf.Tensor, batch: Any, answered: tf.Tensor) -> Any:  # noqa: ANN401 - whatever the stream holds
            with tf.control_dependencies([self._waited.assign_add(answered - asked)]):
                return tf.nest.map_structure(tf.identity, batch)

        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False
        return tf.data.Dataset.zip((moments, batches, moments)).map(count).with_options(options)


class SplitStepTime(keras.callbacks.Callback):
    """Adds `input_seconds` and `compute_seconds` per epoch to the logs, and names input that is too slow.

    The first batch of a fit is left out: it fills the buffers and compiles.
    """

    def __init__(self, clock: InputClock, *, batch_size: int) -> None:
        super().__init__()
        self.clock, self.batch_size = clock, batch_size
        self.is_first = True
        self.has_said = False
        self.started = self.waited = self.elapsed = 0.0
        self.batches = 0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """The next batch compiles."""
        self.is_first = True

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - as above
        """Start the epoch's clocks."""
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
        """Split the epoch's time."""
        if logs is None or not self.batches:
            return
        waited = min(self.clock.seconds - self.waited, self.elapsed)
        logs |= {"input_seconds": round(waited, 4), "compute_seconds": round(self.elapsed - waited, 4)}
        if not self.has_said and waited > BOUND * self.elapsed:
            self.has_said = True
            log.info("%s", describe_bottleneck(waited, self.elapsed, examples=self.batches * self.batch_size))

    def _begin(self) -> None:
        self.started, self.waited = time.perf_counter(), self.clock.seconds
        self.elapsed, self.batches = 0.0, 0


def describe_bottleneck(waited: float, elapsed: float, *, examples: int) -> str:
    """That the input is slower than the network, with both rates.

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
