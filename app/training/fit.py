"""Compile and fit as plain functions of values: no Hydra, no run folder but the paths it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.devices import backend_name
from app.errors import UserError
from app.settings import OptimizerSettings, TrainerSettings
from app.strategy.mirrored import is_mirrored, scope_of, sum_before_clipping
from app.training.best import KeepBest
from app.training.checkpoints import Checkpoint, Checkpoints
from app.training.freezing import find_body
from app.training.losses import build_loss
from app.training.optimizers import Steps, build_optimizer
from app.training.place import Place, Remembering
from app.training.saving import SaveCheckpoints, recall_all
from app.training.segments import Position, plan_segments
from app.training.state import restore_arrays, select_arrays

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class Task:
    """What is trained, on what, and how.

    `stream` gives the batches from a position to the end of the training, `steps_per_epoch` to an epoch.
    """

    network: Any
    stream: Callable[[Position], tf.data.Dataset]
    steps_per_epoch: int
    classes: int
    optimizer: OptimizerSettings
    trainer: TrainerSettings
    soft_labels: bool = False
    freeze_epochs: int = 0


def compile_network(task: Task, *, done: int = 0) -> None:
    """Give the network its optimiser and loss, both in float32.

    Args:
        task: whose network.
        done: batches that were trained before, by another optimiser.
    """
    steps = Steps(task.trainer.epochs * task.steps_per_epoch, task.steps_per_epoch, done)
    with scope_of(task.network):
        _compile(task, steps)
    if is_mirrored(task.network):
        sum_before_clipping(task.network)


def _compile(task: Task, steps: Steps) -> None:
    task.network.compile(
        optimizer=build_optimizer(
            task.optimizer,
            task.network,
            steps=steps,
            accumulate=task.trainer.accumulate,
            ema=task.trainer.ema,
        ),
        loss=build_loss(task.trainer, classes=task.classes, soft_labels=task.soft_labels),
        # XLA is slower than oneDNN for 3D convolution on a CPU; JAX computes operation by operation without.
        jit_compile=backend_name() != "tensorflow",
        auto_scale_loss=False,  # the optimiser sees to it, layer by layer
    )


def fit_network(
    task: Task,
    *,
    place: Place,
    keep: KeepBest,
    callbacks: Sequence[Any],
    checkpoints: Checkpoints,
) -> None:
    """Train for the epochs asked for, from the newest checkpoint on; leave the best weights in place.

    Args:
        task: what is trained.
        place: is told where each segment begins.
        keep: holds the best weights, and tells when patience has ended.
        callbacks: in Keras's order, `place` and `keep` among them.
        checkpoints: where to go on from, and where the newest states go.
    """
    network, found = task.network, checkpoints.load()
    start = found.position if found else Position()
    remembering = [callback for callback in callbacks if isinstance(callback, Remembering)]
    saver = SaveCheckpoints(
        checkpoints,
        place=place,
        keep=keep,
        remembering=remembering,
        steps=task.trainer.checkpoint_steps,
        steps_per_epoch=task.steps_per_epoch,
    )
    body, thaw = find_body(network), task.freeze_epochs
    if found:
        recall_all(remembering, found.state)
        keep.weights = [found.best[name] for name in sorted(found.best)]
    try:
        for segment in plan_segments(start, epochs=task.trainer.epochs, thaw=thaw):
            if keep.stopped:
                break
            is_begun = segment.first == start.epoch
            if is_begun or segment.first == thaw:
                body.set_trainable(segment.first >= thaw)
                compile_network(task, done=thaw * task.steps_per_epoch if segment.first >= thaw else 0)
            if is_begun and found:
                _restore(task, found)
            place.enter(segment, select_arrays(found.arrays, "means") if is_begun and found else ())
            network.fit(
                task.stream(Position(segment.first, segment.skip)),
                initial_epoch=segment.first,
                epochs=segment.last,
                steps_per_epoch=task.steps_per_epoch - segment.skip,
                callbacks=[*callbacks, saver],
                shuffle=False,  # the stream is shuffled already
                verbose=0,
            )
    except UserError:
        keep.put_back(network)  # for the caller to save; what else may end a training leaves nothing to save
        raise
    finally:
        body.set_trainable(True)
    keep.put_back(network)


def _restore(task: Task, found: Checkpoint) -> None:
    """Put a checkpoint's numbers into the compiled network; at the thaw, a new optimiser starts anew."""
    is_thawing = task.freeze_epochs > 0 and found.position == Position(task.freeze_epochs)
    parts = ("network",) if is_thawing else ("network", "optimizer")
    restore_arrays(task.network, found.arrays, parts=parts)
