"""From settings and cohort to the stream of training batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from app.cohort import Cohort
from app.networks import is_trained_on_slices
from app.settings import SettingsError, TrainSettings
from data_pipelines.augment import Augment
from data_pipelines.balance import class_weights
from data_pipelines.pipeline import slices_per_volume, training_slices, training_volumes

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class Feed:
    """All epochs' batches in one stream, `steps_per_epoch` of them to an epoch."""

    batches: tf.data.Dataset
    steps_per_epoch: int
    soft_labels: bool


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
        "weights": _loss_weights(labels) if trainer.balance == "weights" else None,
        "augment": build_augmentation(read_augment(settings.augment), cohort),
        "mix": build_mixing(read_augment(settings.augment)),
    }
    files = cohort.split_files("train")
    if on_slices:
        batches = training_slices(files, labels, axis=model.axis, slab=model.slab, **options)
    else:
        batches = training_volumes(files, labels, **options)
    return Feed(batches, examples // batch_size, soft_labels=options["mix"] is not None)


def read_augment(augment: Mapping[str, Any]) -> Augment:
    """The augmentation's settings as a checked value.

    Raises:
        SettingsError: a field is unknown or out of range.
    """
    fields: dict[str, Any] = {key: value for key, value in augment.items() if key != "name"}
    try:
        chosen = Augment(**fields)
        chosen.check()
    except (TypeError, ValueError) as error:
        raise SettingsError(f"augment: {error}") from error
    return chosen


def build_augmentation(chosen: Augment, cohort: Cohort) -> Any:  # noqa: ANN401 - a graph function, or None
    """The function of one volume's voxels and seed that the settings describe; None where nothing varies."""
    if replace(chosen, mixup_alpha=0.0) == Augment():
        return None
    from data_pipelines.augment.build import build_augment

    return build_augment(chosen, spacing=cohort.preprocess.spacing or (1.0, 1.0, 1.0))


def build_mixing(chosen: Augment) -> Any:  # noqa: ANN401 - a graph function, or None
    """The function that blends pairs of a batch; None where mixup is off."""
    if not chosen.mixup_alpha:
        return None
    from data_pipelines.augment.mixup import build_mixup

    return build_mixup(chosen)


def _loss_weights(labels: NDArray[np.int64]) -> NDArray[np.float32]:
    weights = class_weights(labels.tolist())
    return np.array([weights[label] for label in labels.tolist()], np.float32)
