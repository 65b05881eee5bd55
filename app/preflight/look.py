"""The preflight of a run: of every training that it is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from voxlift.app.networks.building import Networks
from voxlift.app.preflight.check import Preflight, preflight
from voxlift.app.process.randomness import unchanged_randomness
from voxlift.app.settings import TrainSettings
from voxlift.app.subjects.cohort import Cohort
from voxlift.app.training.feeding import Feed, build_feed
from voxlift.app.training.fit import Task, compile_network
from voxlift.app.training.optimizers import tuning_optimizer


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
