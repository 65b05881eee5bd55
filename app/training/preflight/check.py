"""The preflight of a training: network, memory, speed, whether it can overfit a batch; on the terminal."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from rich.table import Table

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.progress import console
from voxlift.app.runtime.devices import Memory, find_free_memory, gpu_capability
from voxlift.app.runtime.setup import unchanged_randomness
from voxlift.app.training.fit import build_fit
from voxlift.app.training.fit_loop import NetworkFit, compile_network
from voxlift.app.training.input import TrainingInput
from voxlift.app.training.networks import Networks
from voxlift.app.training.preflight.trial_steps import OverfitResult, Rates, measure_rates, overfit_batch
from voxlift.app.training.stages import Stage
from voxlift.app.training.strategy.distribute import device_count

if TYPE_CHECKING:
    from voxlift.models.memory import TrainingMemory


log = logging.getLogger("voxlift")

ENGINE_BYTES = 2_000_000  # for each layer's graph and kernels in this process's memory; 1.9 to 5 MB measured
NOTEWORTHY = 0.5  # share of the free memory above which a step is worth a look at its parts
SHORT_SECONDS = 20.0  # a shorter training is not worth measuring
SLOW_FLOPS = 2e10  # a second: what even a slow CPU does, so that only truly short trainings count as short
WEIGHT_BYTES = 4
MARGIN = 0.9  # of what is free: the estimate misses the workspaces of kernels
REDUCIBLE = (
    "preprocess.shape (or a coarser preprocess.spacing), model.filters, or precision=mixed_bfloat16, "
    "which halves the activations"
)


@dataclass(frozen=True)
class Preflight:
    """What was found, for `preflight.json`.

    Attributes:
        resolutions: The network, by the resolution of its outputs.
        need: Bytes that a step and scoring need.
        memory: Bytes that the device has free.
        rates: None where the training is too short to measure.
        overfit: None unless `preflight.overfit_batch` asks for it.
    """

    resolutions: tuple[Resolution, ...]
    need: Need
    memory: Memory
    rates: Rates | None
    overfit: OverfitResult | None

    def as_json(self) -> dict[str, Any]:
        """Return all figures, in bytes and seconds."""
        return {
            "stages": [asdict(one) for one in self.resolutions],
            "parameters": sum(one.parameters for one in self.resolutions),
            "flops_per_sample": sum(one.flops for one in self.resolutions),
            "memory": self._memory_as_json(),
            "rates": None if self.rates is None else self.rates.as_json(),
            "overfit_losses": None if self.overfit is None else list(self.overfit.losses),
        }

    def _memory_as_json(self) -> dict[str, Any]:
        need, usable = self.need, int(MARGIN * self.memory.free) - self.need.engine
        return {
            **asdict(need),
            "bytes": need.bytes,
            "free": self.memory.free,
            "device": self.memory.name,
            "largest_batch": need.training.largest_batch(usable),
        }


def run_preflight(stages: Sequence[Stage], inputs: Sequence[TrainingInput]) -> tuple[Preflight, ...]:
    """Check every stage of a training before the first one begins; networks and random draws stay unchanged.

    Args:
        stages: With the networks as they are before training.
        inputs: The training batches of each.

    Returns:
        One result for each stage whose `preflight.enabled` is true.

    Raises:
        SettingsError: A stage cannot fit into memory, or (`preflight.overfit_batch`) cannot learn one batch.
    """
    results = []
    for stage, data in zip(stages, inputs, strict=True):
        if stage.settings.preflight.enabled:
            with unchanged_randomness():
                results.append(check_stage(stage.take_networks(), data))
    return tuple(results)


def print_budgets(report: Preflight, grids: Mapping[int, Sequence[int]], settings: TrainSettings) -> None:
    """Print memory and time an epoch of the grids of other voxel budgets, from what was measured on this one.

    Activations and seconds grow with the voxels; of a slice model, activations with those of a slice.

    Args:
        report: Of the last stage.
        grids: Shape [depth, height, width] by `preprocess.budget`.
        settings: Of the training, with the shape that was measured.
    """
    first = 1 if settings.model.kind == "slice" else 0
    shape, training = settings.preprocess.shape, report.need.training
    table = Table("preprocess.budget", title=f"{settings.model.name} by grid")
    for heading in ("grid", "memory of a step, GB", "an epoch"):
        table.add_column(heading, justify="right")
    by_grid: dict[tuple[int, ...], list[str]] = {}
    for budget, sides in grids.items():
        by_grid.setdefault(tuple(sides), []).append(str(budget))
    for grid, budgets in by_grid.items():
        ratio = math.prod(grid[first:]) / math.prod(shape[first:])
        size = training.fixed + ratio * report.need.batch * training.per_sample + report.need.engine
        time = "not measured"
        if report.rates is not None:
            seconds = report.rates.epoch_seconds * math.prod(grid) / math.prod(shape)
            time = f"{seconds:,.3g} s{' (measured)' if list(grid) == list(shape) else ''}"
        table.add_row(" or ".join(budgets), "x".join(map(str, grid)), f"{size / 1e9:.2f}", time)
    console.print(table)


def check_stage(networks: Networks, data: TrainingInput) -> Preflight:
    """Check one stage; its networks keep their weights, and the trained one is compiled afterwards.

    Raises:
        SettingsError: As `run_preflight`.
    """
    settings, network = data.settings, networks.trained
    resolutions = list_resolutions(network)
    fit = build_fit(networks, data)
    with unchanged_randomness():
        compile_network(fit)
        need = _estimate_need(networks, data, layers=sum(one.layers for one in resolutions))
        memory = find_free_memory()
        if settings.preflight.verbose or need.bytes > NOTEWORTHY * memory.free:
            print_resolutions(resolutions, name=settings.model.name)
            print_memory(need, memory)
        else:
            log.info("%s", describe_memory(need, memory))
        sample = resolutions[0].name if resolutions else "one sample"
        refuse_what_cannot_fit(need, memory, settings, sample=sample)
        rates = _measure_rates(network, data, flops=sum(one.flops for one in resolutions))
        overfit = _overfit(fit, data) if settings.preflight.overfit_batch else None
    return Preflight(resolutions, need, memory, rates, overfit)


def _estimate_need(networks: Networks, data: TrainingInput, *, layers: int) -> Need:
    from voxlift.models.memory import training_memory

    settings, size = data.settings, data.settings.trainer.batch_size
    scoring = training_memory(networks.volume, optimizer_slots=0)
    training = replace(training_memory(networks.trained), slots=slot_bytes(networks.trained))
    has_gpu = gpu_capability() is not None
    # Devices that are made of one CPU share its memory.
    has_own_memory = has_gpu or settings.strategy == "hosts"
    return Need(
        training=training.per_device(device_count(settings)) if has_own_memory else training,
        batch=data.batch_size,
        per_setting=max(1, data.batch_size // size),
        scoring=size * scoring.transient + scoring.weights,
        engine=0 if has_gpu else layers * ENGINE_BYTES,
    )


def _measure_rates(network: Any, data: TrainingInput, *, flops: int) -> Rates | None:  # noqa: ANN401 - untyped Keras
    """Return the measured rates; None for a training that is over before they are measured."""
    size, steps = data.settings.trainer.batch_size, data.steps_per_epoch * data.settings.trainer.epochs
    if 3 * flops * data.batch_size * steps / SLOW_FLOPS < SHORT_SECONDS:
        return None
    try:
        rates = measure_rates(
            network,
            data.batches,
            steps_per_epoch=data.steps_per_epoch,
            shares_cores=gpu_capability() is None,
        )
    except MemoryError as error:
        raise SettingsError(
            f"The device ran out of memory in a first step with trainer.batch_size={size}. Halve it, with "
            "trainer.accumulate=2 for the same step."
        ) from error
    log.info("%s", describe_rates(rates))
    return rates


def _overfit(fit: NetworkFit, data: TrainingInput) -> OverfitResult:
    compile_network(replace(fit, optimizer=replace(fit.optimizer, schedule="constant")))
    result = overfit_batch(fit.network, next(iter(data.batches)))
    if not result.has_learnt:
        raise SettingsError(f"{result.sentence} (preflight.overfit_batch=false trains nevertheless.)")
    log.info("%s", result.sentence)
    return result


@dataclass(frozen=True)
class Need:
    """Bytes that one step of training and of scoring need.

    Attributes:
        training: Of a step.
        batch: Samples of a batch, as the network takes them: slices or volumes.
        per_setting: Samples of a batch for each unit of `trainer.batch_size`.
        scoring: Of scoring a batch.
        engine: Graph and kernels, whatever the batch.
    """

    training: TrainingMemory
    batch: int
    per_setting: int
    scoring: int
    engine: int = 0

    @property
    def bytes(self) -> int:
        """The larger of training and scoring, which do not happen at the same time, plus the engine's."""
        return max(self.training.total(self.batch), self.scoring) + self.engine


def slot_bytes(network: Any) -> int:  # noqa: ANN401 - untyped Keras
    """Return the bytes of the optimiser of a compiled network: moments, averages, accumulated gradients."""
    optimizer = network.optimizer
    if not optimizer.built:
        optimizer.build(network.trainable_variables)
    return sum(WEIGHT_BYTES * math.prod(variable.shape) for variable in optimizer.variables)


def refuse_what_cannot_fit(need: Need, memory: Memory, settings: TrainSettings, *, sample: str) -> None:
    """Pass when the estimate leaves a margin.

    Args:
        need: Of the network.
        memory: What is free.
        settings: Of the training.
        sample: The shape of one sample, for the message.

    Raises:
        SettingsError: With the batch size that would fit, or what to reduce where none would.
    """
    free = int(MARGIN * memory.free)
    if need.bytes <= free:
        return
    batch = settings.trainer.batch_size
    fitting = min(need.training.largest_batch(free - need.engine) // need.per_setting, batch)
    while fitting and need.scoring * fitting // batch > free - need.engine:
        fitting -= 1
    lacking = (
        f"The training does not fit: trainer.batch_size={batch} ({need.batch} x {sample}) needs about "
        f"{_gb(need.bytes)} ({describe_parts(need)}), and {memory.name} has {_gb(memory.free)} free."
    )
    if not fitting:
        raise SettingsError(f"{lacking} Even a batch of one does not fit: reduce {REDUCIBLE}.")
    steps = -(-batch // fitting)
    raise SettingsError(
        f"{lacking} trainer.batch_size={fitting} would fit; with trainer.accumulate={steps} as well, "
        f"{steps} such batches make one step."
    )


def describe_parts(need: Need) -> str:
    """Return the parts of the sum in words, largest first."""
    training = need.training
    parts: Sequence[tuple[str, int]] = (
        ("activations", need.batch * training.per_sample),
        ("weights", training.weights),
        ("gradients", training.gradients),
        ("optimizer", training.slots),
        ("graph and kernels", need.engine),
        ("scoring", need.scoring if need.scoring > training.total(need.batch) else 0),
    )
    largest = sorted((part for part in parts if part[1]), key=lambda part: -part[1])
    return ", ".join(f"{name} {_gb(size)}" for name, size in largest)


def _gb(size: float) -> str:
    return f"{size / 1e9:.3g} GB"


@dataclass(frozen=True)
class Resolution:
    """Consecutive layers whose outputs have the same sides; costs of one sample and a forward pass.

    Attributes:
        sides: Depth, height, width of a volume; height, width of a slice; empty for a vector.
        channels: The most channels of an output.
        layers: How many layers.
        parameters: Weights of these layers.
        flops: Floating-point operations.
        activation_bytes: Size of the outputs.
    """

    sides: tuple[int, ...]
    channels: int
    layers: int
    parameters: int
    flops: int
    activation_bytes: int

    @property
    def name(self) -> str:
        """The sides, such as 16x32x32."""
        return "x".join(map(str, self.sides)) or "vector"


def list_resolutions(network: Any) -> tuple[Resolution, ...]:  # noqa: ANN401 - untyped Keras
    """Return the layers of a Functional or Sequential network by resolution, in the order of computation."""
    from voxlift.models.complexity import VIEWS, layer_costs

    costs = [cost for cost in layer_costs(network) if cost.kind not in VIEWS]
    groups = itertools.groupby(costs, key=lambda cost: cost.output_shape[1:-1])
    return tuple(_sum_costs(tuple(sides), list(members)) for sides, members in groups)


def print_resolutions(resolutions: Sequence[Resolution], *, name: str) -> None:
    """Print a row for each resolution, and their sum."""
    table = Table("output", title=f"{name}, for one sample and a forward pass")
    for column in ("channels", "layers", "parameters", "MFLOP", "MB"):
        table.add_column(column, justify="right")
    for one in resolutions:
        table.add_row(one.name, str(one.channels), *_figures(one))
    table.add_section()
    table.add_row("all", "", *_figures(*resolutions))
    console.print(table)


def print_memory(need: Need, memory: Memory) -> None:
    """Print what a step needs, with what is free."""
    training = need.training
    table = Table("memory of a step", title=f"{memory.free / 1e9:.1f} GB free on {memory.name}")
    table.add_column("MB", justify="right")
    rows = (
        (f"activations and their gradients, batch {need.batch}", need.batch * training.per_sample),
        ("weights", training.weights),
        ("gradients", training.gradients),
        ("optimizer", training.slots),
        ("graph and kernels", need.engine),
        ("scoring, not at the same time", need.scoring),
    )
    for name, size in rows:
        table.add_row(name, f"{size / 1e6:,.1f}")
    console.print(table)


def describe_memory(need: Need, memory: Memory) -> str:
    """Return a sentence on what a step needs of the memory that is free."""
    needed, free = f"{need.bytes / 1e9:.2g} GB", f"{memory.free / 1e9:.1f} GB"
    return f"A step needs about {needed} of the {free} free on {memory.name}."


def describe_rates(rates: Rates) -> str:
    """Return how long an epoch will take; the training itself measures what waits for what.

    >>> describe_rates(Rates(0.05, 0.1, steps_per_epoch=20, shares_cores=False))
    'Input 20 batches/s, compute 10 batches/s: 20 steps per epoch, about 2 s.'
    """
    both = f"Input {1 / rates.input_seconds:.3g} batches/s, compute {1 / rates.compute_seconds:.3g} batches/s"
    epoch = f"{rates.steps_per_epoch} steps per epoch, about {rates.epoch_seconds:.3g} s"
    return f"{both}: {epoch}."


def _sum_costs(sides: tuple[int, ...], costs: Sequence[Any]) -> Resolution:
    return Resolution(
        sides=sides,
        channels=max(cost.output_shape[-1] for cost in costs),
        layers=len(costs),
        parameters=sum(cost.parameters for cost in costs),
        flops=sum(cost.flops for cost in costs),
        activation_bytes=sum(cost.activation_bytes for cost in costs),
    )


def _figures(*resolutions: Resolution) -> tuple[str, ...]:
    return (
        str(sum(one.layers for one in resolutions)),
        f"{sum(one.parameters for one in resolutions):,}",
        f"{sum(one.flops for one in resolutions) / 1e6:,.1f}",
        f"{sum(one.activation_bytes for one in resolutions) / 1e6:,.1f}",
    )
