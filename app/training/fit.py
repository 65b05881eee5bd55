"""Compile and fit as plain functions of values: no Hydra, no run folder but the paths it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from app.devices import backend_name
from app.settings import OptimizerSettings, TrainerSettings
from app.training.best import KeepBest
from app.training.display import ShowProgress
from app.training.history import WriteHistory
from app.training.losses import build_loss
from app.training.optimizers import build_optimizer
from app.training.validation import ScoreVolumes
from app.training.watch import StopOnNonFinite

if TYPE_CHECKING:
    import tensorflow as tf


def compile_network(
    network: Any,  # noqa: ANN401 - untyped Keras
    *,
    optimizer: OptimizerSettings,
    trainer: TrainerSettings,
    classes: int,
    steps_per_epoch: int,
    soft_labels: bool = False,
) -> None:
    """Give the network its optimiser and loss: softmax cross-entropy on float32 logits."""
    network.compile(
        optimizer=build_optimizer(
            optimizer, total_steps=trainer.epochs * steps_per_epoch, steps_per_epoch=steps_per_epoch
        ),
        loss=build_loss(classes, label_smoothing=trainer.label_smoothing, soft_labels=soft_labels),
        # XLA is slower than oneDNN for 3D convolution on a CPU; JAX computes operation by operation without.
        jit_compile=backend_name() != "tensorflow",
    )


def fit_network(
    network: Any,  # noqa: ANN401 - untyped Keras
    batches: tf.data.Dataset,
    *,
    trainer: TrainerSettings,
    steps_per_epoch: int,
    score: Callable[[], dict[str, float]],
    history: Path,
    tensorboard: Path | None = None,
) -> KeepBest:
    """Train for the epochs asked for and leave the network with its best weights.

    Args:
        network: compiled.
        batches: one stream over all epochs, `steps_per_epoch` batches each.
        trainer: epochs, monitored metric, patience.
        steps_per_epoch: batches that make an epoch.
        score: scores the validation volumes with the current weights.
        history: the CSV file that gets a row per epoch.
        tensorboard: where events go; None writes none.
    """
    keep = KeepBest(trainer.monitor, patience=trainer.patience)
    callbacks: Sequence[Any] = [
        ScoreVolumes(score),  # first: the others read what it adds to the logs
        WriteHistory(history),
        keep,
        StopOnNonFinite(),
        ShowProgress(epochs=trainer.epochs, steps=steps_per_epoch),
        *([keras.callbacks.TensorBoard(str(tensorboard), write_graph=False)] if tensorboard else []),
    ]
    network.fit(
        batches,
        epochs=trainer.epochs,
        steps_per_epoch=steps_per_epoch,
        callbacks=callbacks,
        shuffle=False,  # the stream is shuffled already
        verbose=0,
    )
    return keep
