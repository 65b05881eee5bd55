"""The preflight of a training: network, memory, speed, and whether it can overfit one batch."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.table import Table

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.progress import console
from voxlift.app.runtime.devices import Memory, find_free_memory, gpu_capability
from voxlift.app.runtime.setup import unchanged_randomness
from voxlift.app.training.fit import build_fit
from voxlift.app.training.fit_loop import NetworkFit, compile_network
from voxlift.app.training.input import TrainingInput
from voxlift.app.training.networks import Networks
from voxlift.app.training.preflight.memory import MARGIN, Need, refuse_what_cannot_fit, slot_bytes
from voxlift.app.training.preflight.tables import (
    Resolution,
    describe_memory,
    describe_rates,
    list_resolutions,
    print_memory,
    print_resolutions,
)
from voxlift.app.training.preflight.trial_steps import OverfitResult, Rates, measure_rates, overfit_batch
from voxlift.app.training.stages import Stage
from voxlift.app.training.strategy.distribute import device_count

log = logging.getLogger("voxlift")

ENGINE_BYTES = 2_000_000  # for each layer's graph and kernels in this process's memory; 1.9 to 5 MB measured
NOTEWORTHY = 0.5  # share of the free memory above which a step is worth a look at its parts
SHORT_SECONDS = 20.0  # a shorter training is not worth measuring
SLOW_FLOPS = 2e10  # a second: what even a slow CPU does, so that only truly short trainings count as short


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
