"""The training batches: volumes, or slices of the same volumes in the same order, and their augmentation."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.data.cohort import Cohort
from voxlift.app.data.sources import read_augment
from voxlift.app.tasks.base import Loss
from voxlift.app.training.checkpoints import Position
from voxlift.app.training.networks import is_trained_on_slices
from voxlift.app.training.strategy.distribute import batch_shard, device_count
from voxlift.data_pipelines.augment import Augment, changes_handedness
from voxlift.data_pipelines.errors import list_some

if TYPE_CHECKING:
    import tensorflow as tf

    from voxlift.data_pipelines.pipeline import TrainingOptions

log = logging.getLogger("voxlift")

_SIDE = re.compile(r"(?<![^\W_])(left|right|l|r|lh|rh)(?![^\W_])")


class TrainingInput:
    """The batches of all epochs of one fit, opened once.

    Args:
        settings: Of the fit.
        cohort: Its subjects and prepared volumes.

    Attributes:
        settings: As given.
        cohort: As given.
    """

    def __init__(self, settings: TrainSettings, cohort: Cohort) -> None:
        self.settings = settings
        self.cohort = cohort

    @property
    def batch_size(self) -> int:
        """Examples of a batch: volumes, or slices."""
        return self._options.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        _, examples = self._plan
        return examples // self.batch_size

    @property
    def loss(self) -> Loss:
        """The loss per example; after mixup of rows of probabilities [B, K] in place of class indices [B]."""
        cohort = self.cohort
        return cohort.task.build_loss(
            self.settings.trainer,
            cohort.classes,
            cohort.head(),
            soft_labels=self._options.mix is not None,
        )

    @cached_property
    def batches(self) -> tf.data.Dataset:
        """All batches from the first epoch on.

        Raises:
            SettingsError: The augmentation's settings cannot be used.
        """
        return self._build(self._options)

    def batches_from(self, position: Position) -> tf.data.Dataset:
        """Return the batches from a position to the end of the training."""
        if position == Position():
            return self.batches
        batches = self._build(replace(self._options, first_epoch=position.epoch))
        return batches.skip(position.step) if position.step else batches

    def subjects_at(self, position: Position) -> list[str]:
        """Return the subjects of the batch at a position, each once; voxels that are not finite are noted."""
        from voxlift.data_pipelines.pipeline import records_in_batch

        options = replace(self._options, first_epoch=position.epoch)
        members = records_in_batch(self._strata, options, step=position.step, chosen=self._slices)
        indices = self.cohort.indices("train")[np.unique(members)]
        return [_describe_subject(self.cohort, int(index)) for index in indices]

    @cached_property
    def _strata(self) -> NDArray[np.int64]:
        """The group of each training volume, by which volumes are balanced: of classes its label."""
        return self.cohort.task.strata(self.cohort.labels("train"))

    @cached_property
    def _slices(self) -> NDArray[np.bool_] | None:
        """Which slices [volumes, slices] are trained on; None for a network of volumes."""
        from voxlift.data_pipelines.slices import choose_slices

        model = self.settings.model
        if not is_trained_on_slices(model):
            return None
        return choose_slices(self.cohort.prepared("train"), axis=model.axis, slices=model.slices)

    @property
    def _options(self) -> TrainingOptions:
        options, _ = self._plan
        return options

    @cached_property
    def _plan(self) -> tuple[TrainingOptions, int]:
        """The options, with a batch that an epoch can fill and devices can share; and examples per epoch."""
        from voxlift.data_pipelines.pipeline import examples_per_epoch

        options, per_volume = (
            training_options(self.settings, self.cohort),
            np.ones(len(self._strata), np.int64),
        )
        if self._slices is not None:
            options = replace(options, batch_size=options.batch_size * self.settings.model.batch_factor)
            per_volume = self._slices.sum(axis=1)
        examples = examples_per_epoch(self._strata, options, per_volume)
        batch_size = even_share(min(options.batch_size, examples), device_count(self.settings))
        return replace(options, batch_size=batch_size), examples

    def _build(self, options: TrainingOptions) -> tf.data.Dataset:
        from voxlift.data_pipelines.pipeline import training_slices, training_volumes

        model, volumes = self.settings.model, self.cohort.prepared("train")
        if self._slices is None:
            return training_volumes(volumes, self._strata, options)
        return training_slices(
            volumes, self._strata, options, chosen=self._slices, axis=model.axis, slab=model.slab
        )


def training_options(settings: TrainSettings, cohort: Cohort) -> TrainingOptions:
    """Return how examples are shuffled, weighted and augmented.

    Raises:
        SettingsError: The augmentation's settings cannot be used.
    """
    from voxlift.data_pipelines.pipeline import TrainingOptions

    trainer, augment = settings.trainer, read_augment(settings.augment)
    labels = cohort.labels("train")
    strata = cohort.task.strata(labels)
    return TrainingOptions(
        batch_size=trainer.batch_size,
        epochs=trainer.epochs,
        seed=settings.seed,
        balanced=trainer.balance == "sample",
        weights=_loss_weights(strata) if trainer.balance == "weights" else None,
        augment=build_augmentation(augment, cohort),
        mix=build_mixing(augment),
        targets=labels.astype(np.float32) if labels.ndim > 1 else None,
        shard=batch_shard(settings),
    )


def _loss_weights(labels: NDArray[np.int64]) -> NDArray[np.float32]:
    from voxlift.data_pipelines.pipeline import class_weights

    weights = class_weights(labels.tolist())
    return np.array([weights[label] for label in labels.tolist()], np.float32)


def _describe_subject(cohort: Cohort, index: int) -> str:
    subject = cohort.records[index].subject
    voxels = np.fromfile(cohort.files[index], cohort.dtype)
    return subject if np.isfinite(voxels).all() else f"{subject} (its voxels are not finite)"


def even_share(batch_size: int, devices: int) -> int:
    """Return the largest batch up to `batch_size` that gives every device the same number of samples.

    Raises:
        SettingsError: There are fewer samples than devices.

    >>> even_share(13, 4)
    12
    """
    if batch_size < devices:
        raise SettingsError(f"strategy: expected a sample for each of {devices} devices, found {batch_size}.")
    return batch_size - batch_size % devices


def warn_of_mirrors(augment: Augment, classes: Sequence[str]) -> None:
    """Warn that volumes will be mirrored, and name the key that stops it.

    Args:
        augment: The augmentation settings.
        classes: Class names; those that differ only by the side are named.
    """
    if not changes_handedness(augment):
        return
    sides = find_laterality_classes(classes)
    if sides:
        log.warning(
            "The classes %s differ by their side, and the augmentation mirrors volumes, which turns one into "
            "the other: set augment.keep_handedness=true, or the network cannot separate them.",
            list_some(sides),
        )
        return
    log.warning(
        "The augmentation mirrors volumes, which swaps left and right. If the label depends on side or "
        "handedness, set augment.keep_handedness=true, which switches all mirroring off."
    )


def find_laterality_classes(classes: Sequence[str]) -> list[str]:
    """Return the classes whose names differ from another's only by the side.

    >>> find_laterality_classes(["liver", "Kidney left", "Kidney right"])
    ['Kidney left', 'Kidney right']
    """
    groups = defaultdict[str, list[str]](list)
    for name in classes:
        groups[_SIDE.sub("*", name.casefold())].append(name)
    return [name for same in groups.values() if len(same) > 1 for name in same]


def build_augmentation(chosen: Augment, cohort: Cohort) -> Any:  # noqa: ANN401 - a graph function, or None
    """Return the function that augments one volume's voxels by a seed; None where nothing varies.

    Args:
        chosen: The augmentation settings.
        cohort: Its spacing in mm scales movements; 1 mm where volumes keep their native spacing.
    """
    if replace(chosen, mixup_alpha=0.0) == Augment():
        return None
    from voxlift.data_pipelines.augment.build import build_augment

    masks = int("channel" in cohort.preprocess.mask)
    return build_augment(chosen, spacing=cohort.preprocess.spacing or (1.0, 1.0, 1.0), masks=masks)


def build_mixing(chosen: Augment) -> Any:  # noqa: ANN401 - a graph function, or None
    """Return the function that blends pairs of a batch; None where mixup is off."""
    if not chosen.mixup_alpha:
        return None
    from voxlift.data_pipelines.augment.mixup import build_mixup

    return build_mixup(chosen)
