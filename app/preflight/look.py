"""The preflight of a run: of its network, and of the one that is trained before it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from app.preflight.check import Preflight, preflight, unchanged_randomness
from app.settings import TrainSettings
from app.training.inflation import Inflation, tuning_optimizer

if TYPE_CHECKING:
    from app.networks.building import Networks
    from app.subjects.cohort import Cohort
    from app.training.feeding import Feed


def look_ahead(
    settings: TrainSettings, cohort: Cohort, networks: Networks, *, inflation: Inflation | None = None
) -> tuple[Preflight, ...]:
    """Look over every training of a run, in their order, before the first begins.

    Args:
        settings: the run's.
        cohort: its subjects.
        networks: what is trained first.
        inflation: what becomes of it afterwards, where it is a slice model that will be inflated.

    Returns:
        One finding per training; none where `preflight.enabled` is false.

    Raises:
        SettingsError: one of them cannot work.
    """
    if not settings.preflight.enabled:
        return ()
    if inflation is None:
        return (_look(settings, cohort, networks),)
    first = _look(inflation.settings, cohort, networks)
    with unchanged_randomness():
        lifted = inflation.inflate()  # a throw-away: its weights are still those of an untrained network
        return (first, _look(settings, cohort, lifted))


def _look(settings: TrainSettings, cohort: Cohort, networks: Networks) -> Preflight:
    from app.training.feeding import build_feed

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
    from app.training.fit import Task, compile_network

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
