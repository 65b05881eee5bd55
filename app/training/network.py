"""One training in its run folder: the stream of batches, the callbacks, the checkpoints, and what it cost."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from voxlift.app.config import ModelSettings, TrainSettings
from voxlift.app.config.overrides import flatten
from voxlift.app.data.augmentation import read_augment, warn_of_mirrors
from voxlift.app.data.cohort import Cohort
from voxlift.app.errors import UserError
from voxlift.app.inference.scores import validation_score
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.networks import save_trained
from voxlift.app.runtime.environment import peak_memory_bytes
from voxlift.app.runtime.precision import keep_logits_precise
from voxlift.app.training.callbacks.best import KeepBest, ScoreVolumes
from voxlift.app.training.callbacks.divergence import LogLearningRate, StopOnNonFinite, WatchLossScale
from voxlift.app.training.callbacks.loggers import WriteMlflow, WriteTensorBoard
from voxlift.app.training.callbacks.progress import ShowProgress, WriteHistory
from voxlift.app.training.callbacks.step_counter import Place
from voxlift.app.training.callbacks.timing import InputClock, SplitStepTime
from voxlift.app.training.checkpoints import Checkpoints, FollowedCheckpoints, Position
from voxlift.app.training.fit import Task, fit_network
from voxlift.app.training.input import Feed, batch_subjects, build_feed
from voxlift.app.training.networks import Networks
from voxlift.app.training.optimizers import tuning_optimizer
from voxlift.app.training.pretrained import trained_source
from voxlift.app.training.strategy.hosts.data_parallel import global_batches, hand_over_weights
from voxlift.app.training.strategy.hosts.rendezvous import is_follower
from voxlift.app.training.strategy.hosts.validation import score_together

if TYPE_CHECKING:
    import tensorflow as tf


log = logging.getLogger("voxlift")


def train_network(
    run: RunFolder, settings: TrainSettings, *, cohort: Cohort, networks: Networks
) -> dict[str, float]:
    """Train, from the run's newest checkpoint on where there is one; the best weights are left in place.

    Returns:
        What it cost.

    Raises:
        UserError: the loss or the validation scores are not finite; the best weights are saved as the run's
            model before.
    """
    keep_logits_precise(networks.trained)
    keep_logits_precise(networks.own)
    warn_of_mirrors(read_augment(settings.augment), cohort.classes)
    place, history = Place(), WriteHistory(run.history)
    keep = KeepBest(settings.trainer.monitor, patience=settings.trainer.patience)
    clock, feed = InputClock(), build_feed(settings, cohort)
    task = _build_task(settings, cohort=cohort, networks=networks, feed=feed, clock=clock)
    follows = is_follower(settings)
    checkpoints = FollowedCheckpoints(run.checkpoints) if follows else Checkpoints(run.checkpoints)
    started = time.perf_counter()
    if checkpoints.is_empty:
        _settle(networks, feed, settings)
    settling = time.perf_counter() - started
    written = [] if follows else recorders(run, settings, feed)
    display = ShowProgress(place, epochs=settings.trainer.epochs, steps=feed.steps_per_epoch)
    callbacks = [
        place,  # first: the others read where the training stands
        SplitStepTime(clock, batch_size=feed.batch_size),
        StopOnNonFinite(place, lambda at: batch_subjects(settings, cohort, at)),
        WatchLossScale(place),
        LogLearningRate(),
        ScoreVolumes(validation(settings, cohort=cohort, networks=networks)),
        history,  # behind all that adds to the logs
        keep,
        *written,
        display,
    ]
    try:
        with display:
            fit_network(task, place=place, keep=keep, callbacks=callbacks, checkpoints=checkpoints)
    except UserError as error:
        kept = "" if follows else f"\n{_keep_good(run, networks, keep)}"
        raise UserError(f"{error}{kept}") from error
    hand_over_weights(networks)
    checkpoints.thin()
    for recorder in written:
        recorder.finish()
    return {
        "parameters": networks.trained.count_params(),
        "best_epoch": keep.best_epoch,
        "train_seconds": round(settling + history.seconds, 2),
        "seconds_per_epoch": round(history.seconds / max(1, keep.epochs_run), 3),
        "peak_memory_bytes": peak_memory_bytes(),
    }


def _settle(networks: Networks, feed: Feed, settings: TrainSettings) -> None:
    """Measure batch statistics anew where the lift asks for it, on whole batches wherever their parts lie."""
    batches = global_batches(feed.batches) if settings.strategy == "hosts" else feed.batches
    settle_statistics(networks.trained, batches, settings.model)


def _keep_good(run: RunFolder, networks: Networks, keep: KeepBest) -> str:
    """Save the best weights of a training that broke off; what was kept."""
    if not keep.weights:
        return "No epoch was finished before, so there are no weights to keep."
    hand_over_weights(networks)
    save_trained(networks.volume, run.model)
    return f"The weights of epoch {keep.best_epoch + 1}, the best before that, are kept in {run.model}."


def recorders(run: RunFolder, settings: TrainSettings, feed: Feed) -> list[Any]:
    """The callbacks that write elsewhere than into the run folder's own files (group `logger`)."""
    found: list[Any] = []
    if settings.logger.tensorboard:
        found.append(WriteTensorBoard(run.tensorboard, feed.batches))
    if settings.logger.mlflow:
        found.append(WriteMlflow(settings.logger, name=run.path.name, params=flatten(asdict(settings))))
    return found


def validation(settings: TrainSettings, *, cohort: Cohort, networks: Networks) -> Any:  # noqa: ANN401 - see validation_score
    """The function that scores the validation volumes."""
    if settings.strategy == "hosts":
        return score_together(networks, cohort, batch_size=settings.trainer.batch_size)
    return validation_score(networks.volume, cohort, batch_size=settings.trainer.batch_size)


def _build_task(
    settings: TrainSettings, *, cohort: Cohort, networks: Networks, feed: Feed, clock: InputClock
) -> Task:
    def stream(at: Position) -> tf.data.Dataset:
        batches = build_feed(settings, cohort, first_epoch=at.epoch).batches
        return clock.attach(batches.skip(at.step) if at.step else batches)

    return Task(
        networks.trained,
        stream,
        feed.steps_per_epoch,
        classes=len(cohort.classes),
        optimizer=tuning_optimizer(settings),
        trainer=settings.trainer,
        soft_labels=feed.soft_labels,
        freeze_epochs=settings.model.freeze_epochs,
    )


BATCHES = 16  # enough volumes for steady statistics, few enough to cost seconds


def settle_statistics(network: Any, batches: Iterable[Any], model: ModelSettings) -> None:  # noqa: ANN401 - untyped Keras
    """Measure the batch statistics anew where a lift with trained weights made the copied ones stale.

    `centre` gives every slice the activations that the 2D network knew; averaged or turned kernels do not.
    """
    is_trained = model.pretrain or trained_source(model.baseline) is not None
    if model.kind != "volume" or not is_trained or model.init not in {"mean", "acs"}:
        return
    from voxlift.models.statistics import recalibrate_statistics

    count = recalibrate_statistics(network, (batch[0] for batch in itertools.islice(batches, BATCHES)))
    log.info("Batch statistics measured anew on %d batches", count)
