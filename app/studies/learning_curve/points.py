"""Define the points of the study of the learning curve: a model on a fraction of the training subjects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from voxlift.app.comparison.compose import build_model_overrides
from voxlift.app.comparison.trial import Outcome
from voxlift.app.config import TrainSettings
from voxlift.app.data.cohort import list_subjects


@dataclass(frozen=True)
class CurvePoint:
    """One model on one fraction of the training subjects.

    Attributes:
        model: Name of the model.
        fraction: Of the training subjects.
        subjects: Training subjects (with the first seed; others may have one more or less of a class).
        epochs: Passes over these subjects.
        overrides: Of the training.
    """

    model: str
    fraction: float
    subjects: int
    epochs: int
    overrides: tuple[str, ...]

    @property
    def label(self) -> str:
        """Name for folders and tables."""
        return f"{self.model}-{self.fraction:g}".replace(".", "-")


@dataclass(frozen=True)
class CurveFindings:
    """What was trained.

    Attributes:
        points: All points, models in the order given, fractions rising.
        outcomes: Of all trainings.
        base: Settings of a training of the first model on all subjects.
    """

    points: Sequence[CurvePoint]
    outcomes: Sequence[Outcome]
    base: TrainSettings


def build_points(
    trainings: Mapping[str, TrainSettings],
    fractions: Sequence[float],
    *,
    equal: str,
    folds: Sequence[int] = (0,),
) -> list[CurvePoint]:
    """Return a point for every model and fraction, all subjects among them.

    Args:
        trainings: Settings of each model on all training subjects, by name.
        fractions: Of the training subjects.
        equal: `steps`: fewer subjects get more epochs, so that no model is trained less; `epochs`.
        folds: Of sites that are left out; a point has the mean number of subjects over them.
    """
    points = []
    for name, training in trainings.items():
        sizes = {part: _count_training(training, part, folds) for part in sorted({*fractions, 1.0})}
        steps = {
            part: math.ceil(volumes / training.trainer.batch_size) for part, (_, volumes) in sizes.items()
        }
        for part, (subjects, _) in sizes.items():
            ratio = steps[1.0] / steps[part] if equal == "steps" else 1.0
            points.append(_build_point(name, training, part, subjects, ratio=ratio))
    return points


def _build_point(
    name: str, training: TrainSettings, fraction: float, subjects: int, *, ratio: float
) -> CurvePoint:
    """Return a point whose epochs, warm-up and patience are `ratio` times those with all subjects."""
    epochs = max(1, round(training.trainer.epochs * ratio))
    overrides = [
        *build_model_overrides(name),
        f"splits.train_fraction={fraction:g}",
        f"trainer.epochs={epochs}",
        f"trainer.patience={math.ceil(training.trainer.patience * ratio)}",
        f"optimizer.warmup_epochs={training.optimizer.warmup_epochs * epochs / training.trainer.epochs:.8g}",
    ]
    return CurvePoint(name, fraction, subjects, epochs, tuple(overrides))


def _count_training(training: TrainSettings, fraction: float, folds: Sequence[int]) -> tuple[int, int]:
    """Return the number of training subjects, and of their volumes, with a fraction of the subjects.

    It is the mean over several folds.
    """
    counts = []
    for fold in folds if len(folds) > 1 else [training.splits.fold]:
        own = replace(training, splits=replace(training.splits, train_fraction=fraction, fold=fold))
        manifest, splits = list_subjects(own)
        pairs = zip(manifest.records, splits, strict=True)
        subjects = [record.subject for record, split in pairs if split == "train"]
        counts.append((len(set(subjects)), len(subjects)))
    return tuple(round(fmean(own)) for own in zip(*counts, strict=True))  # type: ignore[return-value] # pairs
