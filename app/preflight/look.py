"""The preflight of a run: of its network, and of the one that is trained before it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from app.networks.building import Networks
from app.preflight.check import Preflight, preflight, unchanged_randomness
from app.settings import TrainSettings
from app.subjects.cohort import Cohort
from app.training.feeding import Feed, build_feed
from app.training.fit import Task, compile_network
from app.training.inflation import Inflation, tuning_optimizer


def look_ahead(settings: TrainSettings, cohort: Cohort, parts: Networks | Inflation) -> tuple[Preflight, ...]:
    """Look over every training of a run, in their order, before the first begins.

    Args:
        settings: the run's.
        cohort: its subjects.
        parts: what is trained; of an inflation first the slice model, then what it is inflated to.

    Returns:
        One finding per training; none where `preflight.enabled` is false.

    Raises:
        SettingsError: one of them cannot work.
    """
    if not settings.preflight.enabled:
        return ()
    if not isinstance(parts, Inflation):
        return (_look(settings, cohort, parts),)
    first = _look(parts.settings, cohort, parts.slices)
    with unchanged_randomness():
        lifted = parts.inflate()  # a throw-away: its weights are still those of an untrained network
        return (first, _look(settings, cohort, lifted))


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
