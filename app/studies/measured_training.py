"""Build, compile and step a network as in a training, so that single steps can be measured."""

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
from voxlift.app.training.fit import build_fit
from voxlift.app.training.fit_loop import NetworkFit, compile_network, scale_learning_rate
from voxlift.app.training.input import TrainingInput
from voxlift.app.training.networks import Networks, build_networks, input_spec, is_trained_on_slices

Batch = tuple[Any, ...]  # voxels, labels, and sample weights if any


@dataclass(frozen=True)
class MeasuredTraining:
    """A compiled training.

    Attributes:
        data: Training batches, with the settings and the cohort.
        networks: Networks as training builds them; `trained` is compiled.
        examples_per_volume: 1, or the number of slices that training makes of a volume without empty slices.
    """

    data: TrainingInput
    networks: Networks
    examples_per_volume: int


def build_measured_training(settings: TrainSettings, *, scale: float | None = None) -> MeasuredTraining:
    """Prepare the data, set seeds and precision, build the networks and compile.

    Args:
        settings: Settings of the training that is measured.
        scale: Factor of each side of the volume, for steps on random voxels; None for steps on real batches.
    """
    cohort = gather_cohort(settings)
    if scale is not None:
        cohort = replace(cohort, shape=scale_shape(cohort.shape, scale))
    prepare_runtime(precision=settings.precision, deterministic=settings.deterministic, seed=settings.seed)
    networks = build_networks(settings.model, input_spec(cohort))
    data = TrainingInput(settings, cohort)
    compile_network(build_fit(networks, data) if scale is None else _build_random_task(networks, data))
    return MeasuredTraining(data, networks, _count_examples_per_volume(settings, cohort))


def _build_random_task(networks: Networks, data: TrainingInput) -> NetworkFit:
    """Return a fit of random voxels and labels, of which an epoch is a single step."""
    return NetworkFit(
        networks.trained,
        data.batches_from,
        steps_per_epoch=1,
        loss=data.loss,
        optimizer=scale_learning_rate(data.settings),
        trainer=data.settings.trainer,
    )


def _count_examples_per_volume(settings: TrainSettings, cohort: Cohort) -> int:
    from voxlift.models.layers.slices import select_slices

    model = settings.model
    if not is_trained_on_slices(model):
        return 1
    selections = select_slices(cohort.shape, axis=model.axis, slices=model.slices, slab=model.slab)
    return sum(selection.count for selection in selections)


def scale_shape(shape: tuple[int, int, int, int], scale: float) -> tuple[int, int, int, int]:
    """Return the shape [D, H, W, C] with its sides scaled to whole voxels and its channels kept.

    >>> scale_shape((20, 30, 32, 1), 0.5)
    (10, 15, 16, 1)
    """
    depth, height, width = (max(1, round(side * scale)) for side in shape[:3])
    return depth, height, width, shape[3]


def repeat_batches(training: MeasuredTraining) -> Iterator[Batch]:
    """Yield the batches of the whole training again and again, without end."""
    while True:
        yield from training.data.batches


def random_batch(training: MeasuredTraining, examples: int) -> Batch:
    """Return random voxels in the shape of training's examples, with random labels."""
    rng = np.random.default_rng(0)
    shape = tuple(int(side) for side in training.networks.trained.input_shape[1:])
    voxels = rng.random((examples, *shape), dtype=np.float32)
    labels = training.data.cohort.labels("train")
    return voxels, labels[rng.integers(0, len(labels), examples)]


def random_volumes(training: MeasuredTraining, count: int) -> NDArray[np.float32]:
    """Return random voxels in the shape of the cohort's volumes [count, D, H, W, C]."""
    return np.random.default_rng(0).random((count, *training.data.cohort.shape), dtype=np.float32)


def repeat_examples(batch: Batch, examples: int) -> Batch:
    """Return a batch of `examples` examples: those of the given batch, repeated in order."""
    order = np.arange(examples) % len(batch[0])
    return tuple(np.asarray(values)[order] for values in batch)


def train_steps(
    network: Any,  # noqa: ANN401 - untyped Keras
    batches: Iterator[Batch],
    steps: int,
    *,
    microbatches: int = 1,
) -> tuple[list[float], list[float], int]:
    """Train for some steps and measure them.

    Args:
        network: Compiled Keras model.
        batches: Enough batches for all steps.
        steps: Number of steps of the optimiser.
        microbatches: Batches of each step, as many as the optimiser accumulates.

    Returns:
        Seconds of each step, reading included; loss of each step; number of examples of all steps.
    """
    seconds, losses, examples = [], [], 0
    for _ in range(steps):
        started = time.perf_counter()
        network.reset_metrics()  # else the loss would be a mean over all steps so far
        for batch in itertools.islice(batches, microbatches):
            loss = network.train_on_batch(*batch)  # the mean since the reset
            examples += len(batch[0])
        losses.append(float(np.ravel(loss)[0]))
        seconds.append(time.perf_counter() - started)
    return seconds, losses, examples


def time_calls(call: Callable[[], object], times: int) -> float:
    """Return the median seconds of a call; a first call, which traces the function, is not counted."""
    call()
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def estimate_step_noise(losses: Sequence[float]) -> float:
    """Return the standard deviation of the loss between steps, without its slow trend.

    Half the mean squared difference of neighbours is their variance, whatever the trend.
    Source:
        von Neumann et al. 1941, doi:10.1214/aoms/1177731677.

    >>> estimate_step_noise([3.0, 2.0, 1.0, 0.0])
    0.7071067811865476
    """
    changes = np.diff(np.asarray(losses, np.float64))
    return float(np.sqrt((changes**2).mean() / 2)) if len(changes) else float("nan")
