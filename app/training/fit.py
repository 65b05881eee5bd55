"""The fit of the networks of one stage in its run folder: callbacks, checkpoints, and what it cost."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from voxlift.app.config import ModelSettings, TrainSettings
from voxlift.app.config.overrides import flatten
from voxlift.app.data.cohort import Cohort
from voxlift.app.data.sources import read_augment
from voxlift.app.errors import UserError
from voxlift.app.files import read_json
from voxlift.app.inference.scores import build_validation_scorer, score_split, scoring_cost
from voxlift.app.progress import phase
from voxlift.app.runs.folder import RunFolder, save_trained
from voxlift.app.runs.results import FIRST_EPOCH
from voxlift.app.runtime.devices import read_peak_memory_bytes
from voxlift.app.runtime.setup import keep_logits_precise
from voxlift.app.training.baseline import has_trained_weights, is_volume_file, trained_source
from voxlift.app.training.callbacks.monitoring import (
    EarlyStopping,
    InputClock,
    LogLearningRate,
    ScoreValidation,
    SplitStepTime,
    StopOnNonFinite,
    WatchLossScale,
)
from voxlift.app.training.callbacks.recording import ShowProgress, WriteHistory, WriteMlflow, WriteTensorBoard
from voxlift.app.training.callbacks.stateful import StepCounter
from voxlift.app.training.checkpoints import Checkpoints, Position, ReadOnlyCheckpoints
from voxlift.app.training.fit_loop import NetworkFit, fit_network, scale_learning_rate
from voxlift.app.training.input import TrainingInput, warn_of_mirrors
from voxlift.app.training.networks import Networks
from voxlift.app.training.stages import Stage
from voxlift.app.training.strategy.distribute import build_shared_scorer, copy_weights, global_batches
from voxlift.app.training.strategy.hosts import is_follower

if TYPE_CHECKING:
    import tensorflow as tf


log = logging.getLogger("voxlift")

RECALIBRATION_BATCHES = 16  # enough volumes for steady statistics, few enough to take seconds


@dataclass(frozen=True)
class FittedNetworks:
    """The networks of a stage with their best weights.

    Attributes:
        networks: Of the stage.
        settings: Of the stage.
        fit_cost: What the fit cost.
        earlier_cost: Seconds of the slice model that was trained first, where there is one.
    """

    networks: Networks
    settings: TrainSettings
    fit_cost: dict[str, float]
    earlier_cost: dict[str, float]

    @property
    def network(self) -> Any:  # noqa: ANN401 - untyped Keras
        """The network of volumes [B, D, H, W, C]."""
        return self.networks.volume

    def save(self, run: RunFolder) -> None:
        """Write `model.keras`."""
        save_trained(self.network, run.model)

    def score(self, cohort: Cohort) -> dict[str, Any]:
        """Return the scores of each split that holds subjects."""
        size = self.settings.trainer.batch_size
        return {split: score_split(self._scorer, cohort, split, batch_size=size) for split in cohort.present}

    def cost(self, cohort: Cohort) -> dict[str, float]:
        """Return parameters, seconds and bytes of the fit, and what scoring a volume costs."""
        size = self.settings.trainer.batch_size
        scoring = scoring_cost(self.network, self._scorer, cohort, batch_size=size)
        return {**self.fit_cost, **scoring, **self.earlier_cost}

    @cached_property
    def _scorer(self) -> Any:  # noqa: ANN401 - untyped Keras
        """The network with batch normalisation folded into its convolutions: the same scores, sooner."""
        from voxlift.models.batch_norm import fold_batch_norm

        return fold_batch_norm(self.network)


@dataclass(frozen=True)
class Callbacks:
    """The callbacks of a fit that are also asked for what they know.

    Attributes:
        counter: Counts epochs and batches.
        keep: Holds the best weights.
        history: Writes `history.csv`.
        writers: Write to TensorBoard and MLflow, as the group `logger` says.
        display: The progress bar.
    """

    counter: StepCounter
    keep: EarlyStopping
    history: WriteHistory
    writers: tuple[Any, ...]
    display: ShowProgress


def fit_networks(run: RunFolder, stage: Stage, data: TrainingInput) -> FittedNetworks:
    """Train from the newest checkpoint on, where there is one; the best weights are left in place.

    Args:
        run: The folder of the stage.
        stage: Its settings and untrained networks.
        data: Its training batches.

    Raises:
        UserError: The loss or the validation scores are not finite; the best weights so far were saved.
    """
    settings = stage.settings
    with phase("Building the network"):
        networks = _take_networks(stage)
    warn_of_mirrors(read_augment(settings.augment), data.cohort.classes)
    is_writer = not is_follower(settings)
    checkpoints = Checkpoints(run.checkpoints) if is_writer else ReadOnlyCheckpoints(run.checkpoints)
    started = time.perf_counter()
    if checkpoints.is_empty:
        batches = global_batches(data.batches) if settings.strategy == "hosts" else data.batches
        with phase("Measuring the statistics of a lifted network"):
            recalibrate_lifted(networks.trained, batches, settings.model)
    recalibration_seconds = time.perf_counter() - started
    callbacks = _build_callbacks(run, data, is_writer=is_writer)
    try:
        _run_epochs(networks, data, callbacks, checkpoints)
    except UserError as error:
        kept = f"\n{_save_best(run, networks, callbacks.keep)}" if is_writer else ""
        raise UserError(f"{error}{kept}") from error
    copy_weights(networks)
    checkpoints.thin()
    for writer in callbacks.writers:
        writer.finish()
    seconds = callbacks.history.seconds
    cost = {
        "parameters": networks.trained.count_params(),
        "best_epoch": callbacks.keep.best_epoch + FIRST_EPOCH,
        "first_epoch": FIRST_EPOCH,
        "train_seconds": round(recalibration_seconds + seconds, 2),
        "seconds_per_epoch": round(seconds / max(1, callbacks.keep.epochs_run), 3),
        "peak_memory_bytes": read_peak_memory_bytes(),
    }
    return FittedNetworks(networks, settings, cost, slice_model_cost(run))


def build_fit(networks: Networks, data: TrainingInput, *, clock: InputClock | None = None) -> NetworkFit:
    """Return what `compile_network` and `fit_network` take.

    Args:
        networks: Whose `trained` network is fitted.
        data: The training batches, with the settings of the fit.
        clock: Measures the wait for batches.
    """
    settings = data.settings

    def stream(position: Position) -> tf.data.Dataset:
        batches = data.batches_from(position)
        return clock.attach(batches) if clock else batches

    return NetworkFit(
        networks.trained,
        stream,
        data.steps_per_epoch,
        loss=data.loss,
        optimizer=scale_learning_rate(settings),
        trainer=settings.trainer,
        freeze_epochs=settings.model.freeze_epochs,
    )


def _take_networks(stage: Stage) -> Networks:
    if stage.build is not None:
        import keras

        # The same draws, whatever was trained or read before.
        keras.utils.set_random_seed(stage.settings.seed)
    networks = stage.take_networks()
    keep_logits_precise(networks.trained)
    keep_logits_precise(networks.own)
    return networks


def _build_callbacks(run: RunFolder, data: TrainingInput, *, is_writer: bool) -> Callbacks:
    counter, trainer, task = StepCounter(), data.settings.trainer, data.cohort.task
    monitor = task.choose_monitor(trainer.monitor)
    return Callbacks(
        counter=counter,
        keep=EarlyStopping(
            monitor, patience=trainer.patience, lower_is_better=monitor in task.lower_is_better
        ),
        history=WriteHistory(run.history),
        writers=_build_writers(run, data) if is_writer else (),
        display=ShowProgress(counter, epochs=trainer.epochs, steps=data.steps_per_epoch),
    )


def _build_writers(run: RunFolder, data: TrainingInput) -> tuple[Any, ...]:
    logger, writers = data.settings.logger, list[Any]()
    if logger.tensorboard:
        writers.append(WriteTensorBoard(run.tensorboard, data.batches))
    if logger.mlflow:
        writers.append(WriteMlflow(logger, name=run.path.name, params=flatten(asdict(data.settings))))
    return tuple(writers)


def _run_epochs(
    networks: Networks, data: TrainingInput, callbacks: Callbacks, checkpoints: Checkpoints
) -> None:
    clock, counter = InputClock(), callbacks.counter
    in_order = [
        counter,  # first: the others read the position from it
        SplitStepTime(clock, batch_size=data.batch_size),
        StopOnNonFinite(counter, data.subjects_at),
        WatchLossScale(counter),
        LogLearningRate(),
        ScoreValidation(_validation_scorer(networks, data)),
        callbacks.history,  # after all that add to the logs
        callbacks.keep,
        *callbacks.writers,
        callbacks.display,
    ]
    fit = build_fit(networks, data, clock=clock)
    with callbacks.display:
        fit_network(fit, counter=counter, keep=callbacks.keep, callbacks=in_order, checkpoints=checkpoints)


def _validation_scorer(networks: Networks, data: TrainingInput) -> Callable[[], dict[str, float]]:
    size = data.settings.trainer.batch_size
    if data.settings.strategy == "hosts":
        return build_shared_scorer(networks, data.cohort, batch_size=size)
    return build_validation_scorer(networks.volume, data.cohort, batch_size=size)


def recalibrate_lifted(network: Any, batches: Iterable[Any], model: ModelSettings) -> None:  # noqa: ANN401 - untyped Keras
    """Measure the statistics of batch normalisation again where the lift has made those of 2D wrong.

    `init=centre` gives every slice the activations of the 2D network; averaged or rotated kernels do not.

    Args:
        network: Of volumes, before training.
        batches: Training batches; the first of each is voxels [B, D, H, W, C].
        model: Whether the network has trained weights, and how it was lifted.
    """
    from voxlift.models.batch_norm import recalibrate_batch_norm

    is_lifted = model.kind == "volume" and not is_volume_file(trained_source(model.baseline))
    if not is_lifted or not has_trained_weights(model) or model.init not in {"mean", "acs"}:
        return
    voxels = (batch[0] for batch in itertools.islice(batches, RECALIBRATION_BATCHES))
    count = recalibrate_batch_norm(network, voxels)
    log.info("Batch normalisation statistics were measured again on %d batches", count)


def _save_best(run: RunFolder, networks: Networks, keep: EarlyStopping) -> str:
    """Save the best weights of a training that stopped with an error, and return a sentence about them."""
    if not keep.weights:
        return "No epoch was finished before, so there are no weights to keep."
    copy_weights(networks)
    save_trained(networks.volume, run.model)
    return f"The weights of epoch {keep.best_epoch + 1}, the best so far, are in {run.model}."


def slice_model_cost(run: RunFolder) -> dict[str, float]:
    """Return the seconds of the slice model that was trained first; nothing where there is none."""
    first = run.slice_model
    if not first.is_finished:
        return {}
    return {"pretrain_seconds": read_json(first.metrics)["cost"]["train_seconds"]}
