"""The preflight of a run: of every training that it is made of."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.data.cohort import Cohort
from voxlift.app.runtime.devices import Memory, free_memory, gpu_capability
from voxlift.app.runtime.setup import unchanged_randomness
from voxlift.app.training.fit import Task, compile_network
from voxlift.app.training.input import Feed, build_feed
from voxlift.app.training.networks import Networks
from voxlift.app.training.optimizers import tuning_optimizer
from voxlift.app.training.preflight.memory import MARGIN, Need, refuse_what_cannot_fit, slot_bytes
from voxlift.app.training.preflight.overfit import OverfitResult, overfit_batch
from voxlift.app.training.preflight.speed import Rates, measure_rates
from voxlift.app.training.preflight.tables import (
    Stage,
    network_stages,
    show_memory,
    show_stages,
    spoken_rates,
)
from voxlift.app.training.strategy.distribute import device_count


def look_ahead(
    trainings: Sequence[tuple[TrainSettings, Callable[[], Networks]]], cohort: Cohort
) -> tuple[Preflight, ...]:
    """Look over every training of a run, in their order, before the first begins.

    Args:
        trainings: the settings of each, and what gives its networks as they will be before it.
        cohort: the run's subjects.

    Returns:
        One finding per training; none of one whose `preflight.enabled` is false.

    Raises:
        SettingsError: one of them cannot work.
    """
    found = []
    for settings, build in trainings:
        if settings.preflight.enabled:
            with unchanged_randomness():
                found.append(_look(settings, cohort, build()))
    return tuple(found)


def _look(settings: TrainSettings, cohort: Cohort, networks: Networks) -> Preflight:
    feed = build_feed(settings, cohort)
    compile_anew = partial(_compile, settings, cohort, networks, feed)
    return preflight(settings, networks, feed, compile_network=compile_anew)


def _compile(
    settings: TrainSettings,
    cohort: Cohort,
    networks: Networks,
    feed: Feed,
    is_constant: bool,  # noqa: FBT001 - the form that `preflight` calls
) -> None:
    optimizer = tuning_optimizer(settings)
    task = Task(
        networks.trained,
        lambda _: feed.batches,
        feed.steps_per_epoch,
        classes=len(cohort.classes),
        optimizer=replace(optimizer, schedule="constant") if is_constant else optimizer,
        trainer=settings.trainer,
        soft_labels=feed.soft_labels,
    )
    compile_network(task)


log = logging.getLogger("voxlift")

ENGINE_BYTES = 2_000_000  # for each layer's graph and kernels in this process's memory; 1.9 to 5 MB measured
SHORT_SECONDS = 20.0  # a training that is over sooner is not worth measuring
SLOW_FLOPS = 2e10  # a second: what even a slow CPU does, so that only truly short trainings count as short


@dataclass(frozen=True)
class Preflight:
    """What was found, for `preflight.json`; `rates` and `overfit` are None where they were not tried."""

    stages: tuple[Stage, ...]
    need: Need
    memory: Memory
    rates: Rates | None
    overfit: OverfitResult | None

    def as_json(self) -> dict[str, Any]:
        """All figures, bytes and seconds."""
        need, rates = self.need, self.rates
        derived = (
            {} if rates is None else {"epoch_seconds": rates.epoch_seconds, "bottleneck": rates.bottleneck}
        )
        return {
            "stages": [asdict(stage) for stage in self.stages],
            "parameters": sum(stage.parameters for stage in self.stages),
            "flops_per_sample": sum(stage.flops for stage in self.stages),
            "memory": {
                **asdict(need),
                "bytes": need.bytes,
                "free": self.memory.free,
                "device": self.memory.name,
                "largest_batch": need.training.largest_batch(int(MARGIN * self.memory.free) - need.engine),
            },
            "rates": None if rates is None else asdict(rates) | derived,
            "overfit_losses": None if self.overfit is None else list(self.overfit.losses),
        }


def preflight(
    settings: TrainSettings,
    networks: Networks,
    feed: Feed,
    *,
    compile_network: Callable[[bool], None],
) -> Preflight:
    """Look the training over before it begins; the networks are left as they were, but for being compiled.

    Args:
        settings: the run's.
        networks: that will be trained, and that will score.
        feed: the batches of the training.
        compile_network: gives the trained network a loss and an optimiser; its argument says whether the
            learning rate shall stay what the settings say from the first step on.

    Raises:
        SettingsError: it cannot fit into memory, or (`preflight.overfit_batch`) cannot learn one batch.
    """
    network = networks.trained
    stages = network_stages(network)
    show_stages(stages, name=settings.model.name)
    with unchanged_randomness():
        compile_network(False)  # noqa: FBT003 - one argument, named in the type's description
        need = _estimate(settings, networks, feed, layers=sum(stage.layers for stage in stages))
        memory = free_memory()
        show_memory(need, memory)
        refuse_what_cannot_fit(need, memory, settings, what=stages[0].name if stages else "one sample")
        rates = _try_rates(settings, network, feed, flops=sum(stage.flops for stage in stages))
        overfit = _try_overfitting(settings, network, feed, compile_network)
    return Preflight(stages, need, memory, rates, overfit)


def _estimate(settings: TrainSettings, networks: Networks, feed: Feed, *, layers: int) -> Need:
    from voxlift.models.memory import training_memory

    batch, size = feed.batch_size, settings.trainer.batch_size
    scoring = training_memory(networks.volume, optimizer_slots=0)
    training = replace(training_memory(networks.trained), slots=slot_bytes(networks.trained))
    has_gpu = gpu_capability() is not None
    # Devices that are made of one CPU share its memory.
    is_shared = has_gpu or settings.strategy == "hosts"
    return Need(
        training=training.shared_by(device_count(settings)) if is_shared else training,
        batch=batch,
        per_setting=max(1, batch // size),
        scoring=size * scoring.passing + scoring.weights,
        engine=0 if has_gpu else layers * ENGINE_BYTES,
    )


def _try_rates(settings: TrainSettings, network: Any, feed: Feed, *, flops: int) -> Rates | None:  # noqa: ANN401 - untyped Keras
    """The measured rates; None for a training that will be over before they are."""
    steps = feed.steps_per_epoch * settings.trainer.epochs
    if 3 * flops * feed.batch_size * steps / SLOW_FLOPS < SHORT_SECONDS:
        return None
    try:
        rates = measure_rates(
            network,
            feed.batches,
            steps_per_epoch=feed.steps_per_epoch,
            shares_cores=gpu_capability() is None,
        )
    except MemoryError as error:
        raise SettingsError(
            f"The device ran out of memory on a first step with trainer.batch_size="
            f"{settings.trainer.batch_size}. Halve it, with trainer.accumulate=2 for the same step."
        ) from error
    log.info("%s", spoken_rates(rates))
    return rates


def _try_overfitting(
    settings: TrainSettings,
    network: Any,  # noqa: ANN401 - untyped Keras
    feed: Feed,
    compile_network: Callable[[bool], None],
) -> OverfitResult | None:
    if not settings.preflight.overfit_batch:
        return None
    compile_network(True)  # noqa: FBT003 - as above
    found = overfit_batch(network, next(iter(feed.batches)))
    if not found.has_learnt:
        raise SettingsError(f"{found.sentence} (preflight.overfit_batch=false trains all the same.)")
    log.info("%s", found.sentence)
    return found
