"""From settings and cohort to the stream of training batches."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import TrainSettings
from voxlift.app.data.augmentation import build_augmentation, build_mixing, read_augment
from voxlift.app.data.cohort import Cohort
from voxlift.app.training.checkpoints import Position
from voxlift.app.training.networks import is_trained_on_slices
from voxlift.app.training.strategy.batches import even_share
from voxlift.app.training.strategy.distribute import batch_part, device_count
from voxlift.data_pipelines.pipeline import (
    TrainingOptions,
    examples_per_epoch,
    training_slices,
    training_volumes,
)
from voxlift.data_pipelines.shuffling import class_weights
from voxlift.data_pipelines.slices import choose_slices

if TYPE_CHECKING:
    import tensorflow as tf


log = logging.getLogger("voxlift")


@dataclass(frozen=True)
class Feed:
    """All epochs' batches in one stream, `steps_per_epoch` of them to an epoch."""

    batches: tf.data.Dataset
    steps_per_epoch: int
    batch_size: int
    soft_labels: bool


def build_feed(settings: TrainSettings, cohort: Cohort, *, first_epoch: int = 0) -> Feed:
    """The training batches for the model's kind: volumes, or slices of the same volumes in the same order.

    Raises:
        SettingsError: the augmentation's settings cannot be used.
    """
    model, labels, volumes = settings.model, cohort.labels("train"), cohort.prepared("train")
    options, steps, chosen = _portions(settings, cohort, first_epoch=first_epoch)
    if chosen is None:
        batches = training_volumes(volumes, labels, options)
    else:
        batches = training_slices(volumes, labels, options, chosen=chosen, axis=model.axis, slab=model.slab)
    return Feed(batches, steps, options.batch_size, soft_labels=options.mix is not None)


def batch_subjects(settings: TrainSettings, cohort: Cohort, at: Position) -> list[str]:
    """The subjects of the batch that begins at a position, each once; whose voxels are not finite is said."""
    from voxlift.data_pipelines.pipeline import batch_members

    options, _, chosen = _portions(settings, cohort, first_epoch=at.epoch)
    members = batch_members(cohort.labels("train"), options, step=at.step, chosen=chosen)
    indices = cohort.indices("train")[np.unique(members)]
    return [_spoken_subject(cohort, int(index)) for index in indices]


def _spoken_subject(cohort: Cohort, index: int) -> str:
    subject = cohort.records[index].subject
    voxels = np.fromfile(cohort.files[index], cohort.dtype)
    return subject if np.isfinite(voxels).all() else f"{subject} (its voxels are not finite)"


def _portions(
    settings: TrainSettings, cohort: Cohort, *, first_epoch: int
) -> tuple[TrainingOptions, int, NDArray[np.bool_] | None]:
    """The options with a batch that an epoch can fill, an epoch's steps, and which slices train, if any."""
    model, labels = settings.model, cohort.labels("train")
    options, chosen = training_options(settings, cohort, first_epoch=first_epoch), None
    per_volume = np.ones(len(labels), np.int64)
    if is_trained_on_slices(model):
        chosen = choose_slices(cohort.prepared("train"), axis=model.axis, slices=model.slices)
        options = replace(options, batch_size=options.batch_size * model.batch_factor)
        per_volume = chosen.sum(axis=1)
    examples = examples_per_epoch(labels, options, per_volume)
    batch_size = even_share(min(options.batch_size, examples), device_count(settings))
    return replace(options, batch_size=batch_size), examples // batch_size, chosen


def training_options(settings: TrainSettings, cohort: Cohort, *, first_epoch: int = 0) -> TrainingOptions:
    """How the settings ask examples to be shuffled, weighed and varied.

    Raises:
        SettingsError: the augmentation's settings cannot be used.
    """
    trainer, augment = settings.trainer, read_augment(settings.augment)
    return TrainingOptions(
        batch_size=trainer.batch_size,
        epochs=trainer.epochs,
        first_epoch=first_epoch,
        seed=settings.seed,
        balanced=trainer.balance == "sample",
        weights=_loss_weights(cohort.labels("train")) if trainer.balance == "weights" else None,
        augment=build_augmentation(augment, cohort),
        mix=build_mixing(augment),
        part=batch_part(settings),
    )


def _loss_weights(labels: NDArray[np.int64]) -> NDArray[np.float32]:
    weights = class_weights(labels.tolist())
    return np.array([weights[label] for label in labels.tolist()], np.float32)
