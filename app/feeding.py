"""From settings and cohort to the stream of training batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from app.cohort import Cohort
from app.networks import is_trained_on_slices
from app.settings import SettingsError, TrainSettings
from data_pipelines.pipeline import slices_per_volume, training_slices, training_volumes

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class Feed:
    """All epochs' batches in one stream, `steps_per_epoch` of them to an epoch."""

    batches: tf.data.Dataset
    steps_per_epoch: int


def build_feed(settings: TrainSettings, cohort: Cohort, *, first_epoch: int = 0) -> Feed:
    """The training batches for the model's kind: volumes, or slices of the same volumes in the same order.

    Raises:
        SettingsError: the augmentation's settings cannot be used.
    """
    trainer, model = settings.trainer, settings.model
    labels = cohort.labels("train")
    on_slices = is_trained_on_slices(model)
    examples = len(labels) * (slices_per_volume(cohort.shape, model.axis) if on_slices else 1)
    batch_size = min(trainer.batch_size * (model.batch_factor if on_slices else 1), examples)
    options: dict[str, Any] = {
        "shape": cohort.shape,
        "dtype": cohort.dtype,
        "batch_size": batch_size,
        "epochs": trainer.epochs,
        "first_epoch": first_epoch,
        "seed": settings.seed,
        "balanced": trainer.balance == "sample",
        "weights": balancing_weights(labels) if trainer.balance == "weights" else None,
        "augment": build_augmentation(settings.augment, cohort),
    }
    files = cohort.split_files("train")
    if on_slices:
        batches = training_slices(files, labels, axis=model.axis, slab=model.slab, **options)
    else:
        batches = training_volumes(files, labels, **options)
    return Feed(batches, examples // batch_size)


def balancing_weights(labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Loss weights [N] that let every class count the same in all, with mean one.

    >>> balancing_weights(np.array([0, 0, 0, 1])).round(2).tolist()
    [0.67, 0.67, 0.67, 2.0]
    """
    counts = np.bincount(labels)
    return np.asarray(len(labels) / (np.count_nonzero(counts) * counts[labels]), np.float32)


def build_augmentation(augment: dict[str, Any], cohort: Cohort) -> Any:  # noqa: ANN401 - a graph function, or None
    """The function of (voxels, seed) that the settings describe; None where nothing varies.

    Raises:
        SettingsError: a field is unknown or out of range.
    """
    from data_pipelines.augment import Augment

    fields = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in augment.items()
        if key != "name"
    }
    try:
        chosen = Augment(**fields)
        chosen.check()
    except (TypeError, ValueError) as error:
        raise SettingsError(f"augment: {error}") from error
    if chosen == Augment():
        return None
    from data_pipelines.augment.build import build_augment

    spacing = cohort.preprocess.spacing or (1.0, 1.0, 1.0)
    return build_augment(chosen, spacing=spacing)
