"""What is trained in one training, and how: slices first where they are inflated, then the network itself.

What brings Keras in is imported by the functions: the process is set up before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from voxlift.app.course.ending import end_run
from voxlift.app.course.failures import told_in_sentences, training_need, way_on
from voxlift.app.course.inflation import (
    Inflation,
    borrow_slices,
    cost_of_slices,
    plan_inflation,
    slice_folder,
    trains_slices_first,
)
from voxlift.app.networks.building import Networks, build_networks
from voxlift.app.networks.files import save_trained
from voxlift.app.process.precision import Precision
from voxlift.app.runs.describing import describe_run
from voxlift.app.runs.folder import RunFolder
from voxlift.app.scoring.cost import scoring_cost
from voxlift.app.scoring.judging import evaluate_run
from voxlift.app.settings import TrainSettings
from voxlift.app.strategy.hosts.meeting import is_follower
from voxlift.app.strategy.spreading import build_spread, do_once
from voxlift.app.subjects.cohort import Cohort

log = logging.getLogger("voxlift")

Parts = Networks | Inflation


def build_parts(settings: TrainSettings, cohort: Cohort) -> Parts:
    """What will be trained: networks, or slices first and what they are inflated to.

    Raises:
        SettingsError, LiftError: the settings name something that cannot be built or lifted.
    """
    if trains_slices_first(settings.model):
        return plan_inflation(settings, cohort)
    networks = build_spread(settings, lambda: build_networks(settings.model, cohort))
    log.info("Model %s: %s parameters", settings.model.name, f"{networks.trained.count_params():,}")
    return networks


def trainings_of(parts: Parts, settings: TrainSettings) -> list[tuple[TrainSettings, Callable[[], Networks]]]:
    """The trainings of the parts in their order: settings, and what gives the networks for a look ahead.

    What a slice model is inflated to is a throw-away there: it has the weights of an untrained network.
    """
    if isinstance(parts, Inflation):
        return [(parts.settings, lambda: parts.slices), (settings, parts.inflate)]
    return [(settings, lambda: parts)]


def train_parts(
    run: RunFolder,
    settings: TrainSettings,
    *,
    cohort: Cohort,
    parts: Parts,
    precision: Precision,
) -> None:
    """Train what is not trained yet, into the run's folder."""
    with told_in_sentences(training_need(settings.trainer), way_on(run.path)):
        _describe(run, settings, cohort=cohort, precision=precision)
        if isinstance(parts, Inflation):
            parts = _train_slices(run, parts, cohort=cohort, precision=precision)
        _train_into(run, settings, cohort=cohort, networks=parts, is_last=True)


def _train_slices(run: RunFolder, inflation: Inflation, *, cohort: Cohort, precision: Precision) -> Networks:
    """Train the slice model unless that is done; the network that it is inflated to."""
    import keras

    first = slice_folder(run)
    if first.is_finished or borrow_slices(first, inflation.settings):
        inflation.take_weights(first)
    else:
        _describe(first, inflation.settings, cohort=cohort, precision=precision)
        _train_into(first, inflation.settings, cohort=cohort, networks=inflation.slices)
    keras.utils.set_random_seed(inflation.settings.seed)  # the same draws, whatever came before
    return inflation.inflate()


def _describe(run: RunFolder, settings: TrainSettings, *, cohort: Cohort, precision: Precision) -> None:
    """Write down what is trained, on whom and on what, where that has not been done."""
    log.info("Precision %s: %s", precision.policy, precision.reason)
    if run.splits.exists() or is_follower(settings):
        return
    describe_run(run, settings, cohort=cohort, precision=precision)


def _train_into(
    run: RunFolder, settings: TrainSettings, *, cohort: Cohort, networks: Networks, is_last: bool = False
) -> None:
    from voxlift.app.training.network import train_network

    cost = train_network(run, settings, cohort=cohort, networks=networks)

    def finish() -> None:
        _finish(run, settings, cohort=cohort, networks=networks, cost=cost)

    do_once(finish, settings, name=f"{settings.model.name} is scored", is_last=is_last)


def _finish(
    run: RunFolder,
    settings: TrainSettings,
    *,
    cohort: Cohort,
    networks: Networks,
    cost: dict[str, float],
) -> None:
    """Save, score and report a network that is trained."""
    from voxlift.models.folding import fold_normalisation

    save_trained(networks.volume, run.model)
    scorer = fold_normalisation(networks.volume)
    metrics = evaluate_run(scorer, cohort, batch_size=settings.trainer.batch_size, run=run)
    scoring = scoring_cost(networks.volume, scorer, cohort, batch_size=settings.trainer.batch_size)
    metrics["cost"] = {**cost, **scoring, **cost_of_slices(run)}
    end_run(run, settings, metrics, cohort=cohort, network=networks.volume)
