"""Trial steps before the first epoch: the speed of input and compute, and overfitting one batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import NDArray

from voxlift.app.runtime.failures import is_out_of_memory

if TYPE_CHECKING:
    import tensorflow as tf


SECONDS = 1.0  # of each measurement, about
SLOW_STEP = 0.25  # seconds, from which on one step after the first is measure enough
BOUND = 1.1  # input is the bottleneck where it is this many times slower than compute


@dataclass(frozen=True)
class Rates:
    """Seconds to read one batch and to train on it, each measured alone.

    Attributes:
        input_seconds: To read and augment a batch.
        compute_seconds: Of a training step.
        steps_per_epoch: Batches of an epoch.
        shares_cores: Whether both run on the same cores, one after the other; otherwise a GPU computes, and
            the slower of the two decides.
    """

    input_seconds: float
    compute_seconds: float
    steps_per_epoch: int
    shares_cores: bool

    @property
    def epoch_seconds(self) -> float:
        """Seconds of an epoch without scoring."""
        both = (self.input_seconds, self.compute_seconds)
        return self.steps_per_epoch * (sum(both) if self.shares_cores else max(both))

    @property
    def bottleneck(self) -> str:
        """`input` or `compute`."""
        return "input" if self.input_seconds > BOUND * self.compute_seconds else "compute"

    def as_json(self) -> dict[str, Any]:
        """Return the figures and what follows from them."""
        return {**asdict(self), "epoch_seconds": self.epoch_seconds, "bottleneck": self.bottleneck}


def measure_rates(
    network: Any,  # noqa: ANN401 - untyped Keras
    batches: tf.data.Dataset,
    *,
    steps_per_epoch: int,
    shares_cores: bool,
) -> Rates:
    """Measure both; the compiled network keeps its weights, statistics and seeds.

    Raises:
        MemoryError: The device ran out of memory.
    """
    batch, input_seconds = measure_input(batches, at_most=steps_per_epoch)
    with unchanged(network):
        compute_seconds = measure_compute(network, batch)
    return Rates(input_seconds, compute_seconds, steps_per_epoch, shares_cores)


def measure_input(batches: tf.data.Dataset, *, at_most: int) -> tuple[Any, float]:
    """Return the first batch, and the seconds to read one of those that follow.

    The first is not counted, since buffers are filled before it, unless an epoch has no other.
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
    """Return the seconds of one training step on a batch in memory; the fastest of three, or a slow one."""
    timer = _TimeSteps()
    repeat(network, batch, steps=2, callback=timer)  # the first compiles
    if timer.seconds[-1] < SLOW_STEP:
        repeat(network, batch, steps=2, callback=timer)
    return min(timer.seconds[1:])


def repeat(network: Any, batch: Any, *, steps: int, callback: keras.callbacks.Callback) -> None:  # noqa: ANN401 - as above
    """Train a compiled network on the same batch several times.

    Raises:
        MemoryError: The device ran out of memory.
    """
    import tensorflow as tf

    batches = tf.data.Dataset.from_tensors(batch).repeat(steps)
    with out_of_memory():
        network.fit(batches, steps_per_epoch=steps, epochs=1, callbacks=[callback], shuffle=False, verbose=0)


@contextmanager
def out_of_memory() -> Iterator[None]:
    """Turn the out-of-memory errors of TensorFlow and JAX into MemoryError."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError(f"{type(error).__name__} {error}".split("\n", maxsplit=1)[0]) from error
        raise


@contextmanager
def unchanged(network: Any) -> Iterator[None]:  # noqa: ANN401 - untyped Keras
    """Restore weights, statistics and the seeds of dropout at the end."""
    kept = [keras.ops.convert_to_numpy(variable) for variable in network.variables]
    try:
        yield
    finally:
        for variable, value in zip(network.variables, kept, strict=True):
            variable.assign(value)


class _TimeSteps(keras.callbacks.Callback):
    """Measures the seconds of each step until its result is there: a device may return before it is done."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__()
        self.clock = clock
        self.seconds: list[float] = []
        self.started = 0.0

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Start the clock."""
        self.started = self.clock()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - as above
        """Stop the clock when the loss is there."""
        float((logs or {}).get("loss", 0.0))
        self.seconds.append(self.clock() - self.started)


OVERFIT_STEPS = 60
LEARNT = 0.5  # the batch counts as learnt below this share of the first loss
HIGH = 20.0  # mean or spread of voxels far above what initial weights are made for


@dataclass(frozen=True)
class OverfitResult:
    """The loss of each step on the same batch, and likely causes where it stays high."""

    losses: tuple[float, ...]
    causes: tuple[str, ...]

    @property
    def has_learnt(self) -> bool:
        """Whether the loss of the last steps is low enough."""
        last = float(np.mean(self.losses[-5:]))
        return bool(np.isfinite(last) and last < LEARNT * self.losses[0])

    @property
    def sentence(self) -> str:
        """The result in a line, with likely causes where the batch was not learnt."""
        change = f"the loss of one batch went from {self.losses[0]:.3g} to {self.losses[-1]:.3g}"
        if self.has_learnt:
            return f"The model can learn: {change} in {len(self.losses)} steps."
        likely = " ".join(f"{cause}." for cause in self.causes)
        return f"The model cannot overfit one batch: {change} in {len(self.losses)} steps. {likely}"


def overfit_batch(network: Any, batch: Sequence[Any], *, steps: int = OVERFIT_STEPS) -> OverfitResult:  # noqa: ANN401 - untyped Keras
    """Train a compiled network on one batch; afterwards its weights are restored.

    Args:
        network: Compiled, best with a constant learning rate.
        batch: Voxels [B, ...], labels [B] or soft labels [B, K], weights [B].
        steps: Of training.
    """
    recorder = _RecordLoss()
    with unchanged(network):
        repeat(network, batch, steps=steps, callback=recorder)
    return OverfitResult(tuple(recorder.losses), tuple(likely_causes(batch, recorder.losses)))


def likely_causes(batch: Sequence[Any], losses: Sequence[float]) -> list[str]:
    """Return what may keep a batch from being learnt, the most certain first.

    >>> likely_causes([np.ones((2, 3, 3, 3, 1)), np.array([0, 1]), np.ones(2)], [0.7, 0.7])[0]
    'All its voxels are equal: check preprocess.window_hu and preprocess.clip_percentiles'
    """
    images = batch[0][0] if isinstance(batch[0], tuple) else batch[0]  # beside columns of the table
    voxels, labels = np.asarray(images, np.float32), np.asarray(batch[1])
    causes = [*_causes_in_voxels(voxels), *_causes_in_labels(voxels, labels)]
    if not np.isfinite(losses).all() or losses[-1] > losses[0]:
        causes.append("The loss rises: a lower optimizer.learning_rate, or optimizer.clip_norm, may help")
    if not causes:
        causes.append(
            "A higher optimizer.learning_rate, less model.dropout or weaker augmentation may help, and "
            "labels that do not belong to their images have the same effect"
        )
    return causes


def _causes_in_voxels(voxels: NDArray[np.float32]) -> list[str]:
    if not np.isfinite(voxels).all():
        return ["It holds voxels that are not finite: check preprocess.nonfinite"]
    if voxels.std() == 0:
        return ["All its voxels are equal: check preprocess.window_hu and preprocess.clip_percentiles"]
    if max(abs(float(voxels.mean())), float(voxels.std())) > HIGH:
        moments = f"mean {voxels.mean():.3g}, spread {voxels.std():.3g}"
        return [f"Its intensities are far from one ({moments}): choose preprocess=ct or mri, or a zscore"]
    return []


def _causes_in_labels(voxels: NDArray[np.float32], labels: NDArray[Any]) -> list[str]:
    flat = voxels.reshape(len(voxels), -1)
    targets = labels.reshape(len(labels), -1)
    for i in range(len(flat)):
        for j in range(i):
            if np.array_equal(flat[i], flat[j]) and not np.array_equal(targets[i], targets[j]):
                return ["It holds the same image with two different labels"]
    return []


class _RecordLoss(keras.callbacks.Callback):
    """Records the loss of each step, from the running mean of Keras."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []
        self.mean = 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Take the loss of this step out of the mean."""
        mean, count = float((logs or {}).get("loss", np.nan)), len(self.losses) + 1
        self.losses.append(mean * count - self.mean * (count - 1))
        self.mean = mean
