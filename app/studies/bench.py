"""A network at the bench: built, fed and compiled as for a training, so that single steps can be measured."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import TrainSettings
from voxlift.app.data.cohort import Cohort, gather_cohort
from voxlift.app.runtime.setup import prepare_runtime
from voxlift.app.training.fit import Task, compile_network
from voxlift.app.training.input import Feed, build_feed
from voxlift.app.training.networks import Networks, build_networks, is_trained_on_slices
from voxlift.app.training.optimizers import tuning_optimizer

Batch = tuple[Any, ...]  # voxels, labels, and sometimes weights


@dataclass(frozen=True)
class Bench:
    """All that a measurement needs.

    Attributes:
        settings: Of the training that is measured.
        cohort: The user's prepared data.
        networks: As training builds them; `trained` is compiled.
        examples_per_volume: 1, or the slices that training makes of a volume.
        steps_per_epoch: Batches that make an epoch.
    """

    settings: TrainSettings
    cohort: Cohort
    networks: Networks
    examples_per_volume: int
    steps_per_epoch: int


def set_up_bench(settings: TrainSettings, *, scale: float = 1.0) -> Bench:
    """Gather the data, set the process's seeds and precision, build the networks and compile.

    Args:
        settings: Of the training that is measured.
        scale: Of each side of the volume; other than 1 is for measurements that need no real voxels.
    """
    cohort = gather_cohort(settings)
    cohort = replace(cohort, shape=scale_shape(cohort.shape, scale))
    prepare_runtime(precision=settings.precision, deterministic=settings.deterministic, seed=settings.seed)
    networks = build_networks(settings.model, cohort)
    feed = build_feed(settings, cohort) if scale == 1.0 else None
    steps = feed.steps_per_epoch if feed else 1
    task = Task(
        network=networks.trained,
        stream=lambda _: feed.batches if feed else None,
        steps_per_epoch=steps,
        classes=len(cohort.classes),
        optimizer=tuning_optimizer(settings),
        trainer=settings.trainer,
        soft_labels=feed is not None and feed.soft_labels,
    )
    compile_network(task)
    return Bench(settings, cohort, networks, _examples_per_volume(settings, cohort), steps)


def _examples_per_volume(settings: TrainSettings, cohort: Cohort) -> int:
    """1, or how many slices training makes of a volume (of a volume without empty ones)."""
    from voxlift.models.slicing import slices_of

    model = settings.model
    if not is_trained_on_slices(model):
        return 1
    parts = slices_of(cohort.shape, axis=model.axis, slices=model.slices, slab=model.slab)
    return sum(part.count for part in parts)


def scale_shape(shape: tuple[int, int, int, int], scale: float) -> tuple[int, int, int, int]:
    """The shape with its sides scaled to whole voxels, its channels kept.

    >>> scale_shape((20, 30, 32, 1), 0.5)
    (10, 15, 16, 1)
    """
    depth, height, width = (max(1, round(side * scale)) for side in shape[:3])
    return depth, height, width, shape[3]


def endless_batches(bench: Bench) -> Iterator[Batch]:
    """Training batches, epoch after epoch, as long as they are asked for."""
    while True:
        feed: Feed = build_feed(bench.settings, bench.cohort)
        yield from feed.batches


def random_batch(bench: Bench, examples: int) -> Batch:
    """Noise in the shape of training's examples, with labels: costs do not depend on what voxels hold."""
    rng = np.random.default_rng(0)
    shape = tuple(int(side) for side in bench.networks.trained.input_shape[1:])
    voxels = rng.random((examples, *shape), dtype=np.float32)
    return voxels, rng.integers(0, len(bench.cohort.classes), examples)


def random_volumes(bench: Bench, count: int) -> NDArray[np.float32]:
    """Noise in the shape of the cohort's volumes [count, D, H, W, C]."""
    return np.random.default_rng(0).random((count, *bench.cohort.shape), dtype=np.float32)


def repeat_batch(batch: Batch, examples: int) -> Batch:
    """The first examples of a batch, over and over until there are as many as asked for."""
    count = len(batch[0])
    order = np.arange(examples) % count
    return tuple(np.asarray(part)[order] for part in batch)


def train_steps(
    network: Any,  # noqa: ANN401 - untyped Keras
    batches: Iterator[Batch],
    steps: int,
    *,
    portions: int = 1,
) -> tuple[list[float], list[float], int]:
    """Take real training steps; their seconds (reading included), their losses, and the examples of all.

    Args:
        network: compiled.
        batches: endless, or long enough.
        steps: how many.
        portions: batches of each step, as many as the optimiser accumulates.
    """
    seconds, losses, examples = [], [], 0
    for _ in range(steps):
        started = time.perf_counter()
        network.reset_metrics()  # else the loss would be a mean over all steps so far
        for batch in itertools.islice(batches, portions):
            loss = network.train_on_batch(*batch)  # the mean since the reset
            examples += len(batch[0])
        losses.append(float(np.ravel(loss)[0]))
        seconds.append(time.perf_counter() - started)
    return seconds, losses, examples


def time_calls(call: Callable[[], object], times: int) -> float:
    """Median seconds of a call that has been made once before, so that tracing is not in it."""
    call()
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def step_noise(losses: Sequence[float]) -> float:
    """Standard deviation of the loss from step to step, its slow fall left out.

    Half the mean squared difference of neighbours is their variance, whatever the trend.
    Source: von Neumann et al. 1941, doi:10.1214/aoms/1177731677.

    >>> step_noise([3.0, 2.0, 1.0, 0.0])
    0.7071067811865476
    """
    changes = np.diff(np.asarray(losses, np.float64))
    return float(np.sqrt((changes**2).mean() / 2)) if len(changes) else float("nan")


def gradient_products(bench: Bench, batches: Iterator[Batch], count: int) -> NDArray[np.float64]:
    """Inner products [count, count] of the gradients of single batches, with the weights as they are."""
    gradients = [_gradient(bench.networks.trained, next(batches)) for _ in range(count)]
    stacked = np.stack(gradients)  # [count, weights] float32
    return np.asarray(stacked @ stacked.T, np.float64)


def _gradient(network: Any, batch: Batch) -> NDArray[np.float32]:  # noqa: ANN401 - untyped Keras
    """The gradient of the training loss on one batch, as one vector."""
    import tensorflow as tf

    weights = network.trainable_variables
    with tf.GradientTape() as tape:
        outputs = network(batch[0], training=True)
        loss = network.compute_loss(
            batch[0], batch[1], outputs, sample_weight=batch[2] if len(batch) > 2 else None
        )
    found = tape.gradient(loss, [weight.value for weight in weights])
    return np.concatenate([np.ravel(np.asarray(one, np.float32)) for one in found])
