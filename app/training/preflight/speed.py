"""How fast the input comes and how fast the device computes, tried on a few batches before the training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    import tensorflow as tf


SECONDS = 1.0  # of each measurement, about
STEPS = 4  # of which the first compiles
BOUND = 1.1  # an input so many times slower than the device is the bottleneck


@dataclass(frozen=True)
class Rates:
    """Seconds that one batch takes to come and to be trained on, each measured alone.

    Where both run on the same cores they take turns; where a GPU computes, the slower one decides.
    """

    input_seconds: float
    compute_seconds: float
    steps_per_epoch: int
    shares_cores: bool

    @property
    def epoch_seconds(self) -> float:
        """An epoch's time, scoring not counted."""
        both = (self.input_seconds, self.compute_seconds)
        return self.steps_per_epoch * (sum(both) if self.shares_cores else max(both))

    @property
    def bottleneck(self) -> str:
        """`input` or `compute`."""
        return "input" if self.input_seconds > BOUND * self.compute_seconds else "compute"


def measure_rates(
    network: Any,  # noqa: ANN401 - untyped Keras
    batches: tf.data.Dataset,
    *,
    steps_per_epoch: int,
    shares_cores: bool,
) -> Rates:
    """Both rates; the compiled network is left with the weights, statistics and seeds that it had.

    Raises:
        MemoryError: the device ran out of memory.
    """
    batch, input_seconds = measure_input(batches, at_most=steps_per_epoch)
    with unchanged(network):
        compute_seconds = measure_compute(network, batch)
    return Rates(input_seconds, compute_seconds, steps_per_epoch, shares_cores)


def measure_input(batches: tf.data.Dataset, *, at_most: int) -> tuple[Any, float]:
    """The first batch, and the seconds that one of the following takes to come.

    The first is not counted: before it, buffers are filled. Where an epoch has only one, it must be.
    """
    started = time.perf_counter()
    stream = iter(batches)
    first = next(stream)
    since = time.perf_counter()
    count = 0
    for count, _ in enumerate(stream, 1):
        if count >= at_most - 1 or time.perf_counter() - since > SECONDS:
            break
    now = time.perf_counter()
    return first, (now - since) / count if count else now - started


def measure_compute(network: Any, batch: Any) -> float:  # noqa: ANN401 - untyped Keras, any batch
    """The seconds of one training step on a batch that lies ready; the fastest of a few."""
    timer = _TimeSteps()
    repeat(network, batch, steps=STEPS, callback=timer)
    return min(timer.seconds[1:])


def repeat(network: Any, batch: Any, *, steps: int, callback: keras.callbacks.Callback) -> None:  # noqa: ANN401 - as above
    """Train a compiled network on one batch again and again.

    Raises:
        MemoryError: the device ran out of memory.
    """
    import tensorflow as tf

    batches = tf.data.Dataset.from_tensors(batch).repeat(steps)
    with out_of_memory():
        network.fit(batches, steps_per_epoch=steps, epochs=1, callbacks=[callback], shuffle=False, verbose=0)


@contextmanager
def out_of_memory() -> Iterator[None]:
    """What the engines say when memory ends, as Python's own error."""
    try:
        yield
    except Exception as error:
        text = f"{type(error).__name__} {error}"
        if "RESOURCE_EXHAUSTED" in text or "ResourceExhausted" in text or "out of memory" in text.lower():
            raise MemoryError(text.split("\n", maxsplit=1)[0]) from error
        raise


@contextmanager
def unchanged(network: Any) -> Iterator[None]:  # noqa: ANN401 - untyped Keras
    """Whatever is trained inside is undone: weights, statistics and the seeds of dropout."""
    kept = [keras.ops.convert_to_numpy(variable) for variable in network.variables]
    try:
        yield
    finally:
        for variable, value in zip(network.variables, kept, strict=True):
            variable.assign(value)


class _TimeSteps(keras.callbacks.Callback):
    """The seconds of each step, its result awaited: a device may answer before it is done."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__()
        self.clock = clock
        self.seconds: list[float] = []
        self.started = 0.0

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Start the clock."""
        self.started = self.clock()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - as above
        """Stop it when the loss is there."""
        float((logs or {}).get("loss", 0.0))
        self.seconds.append(self.clock() - self.started)
