"""From settings and cohort to the stream of training batches."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from app.networks.building import is_trained_on_slices
from app.settings import SettingsError, TrainSettings
from app.strategy.even import even_share
from app.strategy.spreading import batch_part, device_count
from app.subjects.cohort import Cohort
from app.training.segments import Position
from data_pipelines.augment import Augment, changes_handedness
from data_pipelines.balance import class_weights
from data_pipelines.pipeline import (
    TrainingOptions,
    examples_per_epoch,
    training_slices,
    training_volumes,
)
from data_pipelines.slices import choose_slices
from data_pipelines.tables import list_some

if TYPE_CHECKING:
    import tensorflow as tf

log = logging.getLogger("voxlift")

_SIDE = re.compile(r"(?<![^\W_])(left|right|l|r|lh|rh)(?![^\W_])")


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
    from data_pipelines.replay import batch_members

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


def warn_of_mirrors(augment: Augment, classes: Sequence[str]) -> None:
    """Log that volumes will be mirrored, and the key that stops it; the louder where classes are sides."""
    if not changes_handedness(augment):
        return
    sides = sided_classes(classes)
    if sides:
        log.warning(
            "The classes %s are sides, and the augmentation mirrors volumes, which makes one of the other: "
            "take augment.keep_handedness=true, or they cannot be told apart.",
            list_some(sides),
        )
        return
    log.warning(
        "The augmentation mirrors volumes, which swaps left and right: where the label is a side or a "
        "handedness it teaches errors; augment.keep_handedness=true switches all mirroring off."
    )


def sided_classes(classes: Sequence[str]) -> list[str]:
    """The classes whose names differ from another's by the side alone.

    >>> sided_classes(["liver", "Kidney left", "Kidney right"])
    ['Kidney left', 'Kidney right']
    """
    groups = defaultdict[str, list[str]](list)
    for name in classes:
        groups[_SIDE.sub("*", name.casefold())].append(name)
    return [name for same in groups.values() if len(same) > 1 for name in same]


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
