"""Ordered classes: agreement and errors in grades, and the ROC of each cut between grades."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from voxlift.app.evaluation.metrics import (
    class_metric_draws,
    divide,
    metric_draws,
    rank_scores,
    weighted_confusion,
    weighted_roc_auc,
)
from voxlift.app.evaluation.scores import Floats, Integers, Scores

DECISION_METRICS = ("accuracy", "balanced_accuracy")


@dataclass(frozen=True, eq=False)
class Grades(Scores):
    """Labels and probabilities of K ordered classes, the lowest grade first; fields as in `Scores`."""

    is_stratified: ClassVar[bool] = False  # the frequency of each grade also changes kappa and mean error
    primary: ClassVar[str] = "kappa_quadratic"
    headline: ClassVar[tuple[str, ...]] = ("kappa_quadratic", "mae_grades", "auc", "accuracy")

    @property
    def is_binary(self) -> bool:
        """False: no threshold decides between grades."""
        return False

    @property
    def cut_probabilities(self) -> Floats:
        """[N, K - 1] probability of a grade above each cut, so above grade 0, 1, ... K - 2."""
        return above_cuts(self.probabilities)

    @property
    def decisions(self) -> Integers:
        """[N] int64 the median grade, whose expected error in grades is smallest."""
        return median_grades(self.probabilities)

    @property
    def cuts(self) -> tuple[str, ...]:
        """K - 1 names, `>GRADE`, of the cuts above each grade but the highest."""
        return tuple(f">{name}" for name in self.classes[:-1])


def above_cuts(probabilities: Floats) -> Floats:
    """Return the probability [N, K - 1] of a grade above each cut, from those of the grades [N, K]."""
    return np.clip(1 - np.cumsum(probabilities, axis=1)[:, :-1], 0.0, 1.0)


def median_grades(probabilities: Floats) -> Integers:
    """Return the median grade [N] of probabilities [N, K].

    Two equally probable halves, which sum to 0.5 only up to rounding, are decided for the upper one.
    """
    median: Integers = (above_cuts(probabilities) >= 0.5 - 1e-9).sum(axis=1).astype(np.int64)
    return median


def cut_scores(grades: Grades, cut: int) -> Scores:
    """Return a cut as two classes: grades up to it, and grades above it.

    Args:
        grades: Of K classes.
        cut: Index 0..K-2 of the highest grade below the cut.
    """
    above = grades.cut_probabilities[:, cut]
    return Scores(
        subjects=grades.subjects,
        labels=(grades.labels > cut).astype(np.int64),
        probabilities=np.stack([1 - above, above], axis=1),
        classes=(f"<={grades.classes[cut]}", grades.cuts[cut]),
        items=grades.items,
    )


@metric_draws.register
def grade_metric_draws(grades: Grades, weights: Floats) -> dict[str, Floats]:
    """Return `metric_draws` of grades: kappa, error in grades, accuracies, and the AUC of each cut.

    `auc` is the mean over the cuts with both sides among these volumes. `log_loss` and `brier` are those of
    the class probabilities.
    """
    confusion = weighted_confusion(grades, weights)
    steps = np.abs(np.subtract.outer(np.arange(len(grades.classes)), np.arange(len(grades.classes))))
    total = confusion.sum(axis=(1, 2))
    of_classes = class_metric_draws(grades, weights)
    aucs = _cut_aucs(grades, weights)
    has_both_sides = [0 < (grades.labels > cut).sum() < len(grades) for cut in range(len(grades.cuts))]
    both = [auc for auc, kept in zip(aucs, has_both_sides, strict=True) if kept]
    return {
        "kappa_quadratic": quadratic_kappa(confusion),
        "mae_grades": divide((confusion * steps).sum(axis=(1, 2)), total),
        "auc": np.mean(both, axis=0) if both else np.full(len(weights), np.nan),
        **{name: of_classes[name] for name in (*DECISION_METRICS, "log_loss", "brier")},
        **{f"auc[{name}]": auc for name, auc in zip(grades.cuts, aucs, strict=True)},
    }


def quadratic_kappa(confusion: Floats) -> Floats:
    """Return the quadratic weighted kappa [B] of confusion matrices [B, K, K]; nan where chance has no error.

    Source:
        Cohen 1968, doi:10.1037/h0026256.
    """
    classes = confusion.shape[1]
    penalty = np.subtract.outer(np.arange(classes), np.arange(classes)).astype(np.float64) ** 2
    total = confusion.sum(axis=(1, 2))
    by_chance = confusion.sum(axis=2)[:, :, None] * confusion.sum(axis=1)[:, None, :]
    expected = divide((by_chance * penalty).sum(axis=(1, 2)), total)
    return 1 - divide((confusion * penalty).sum(axis=(1, 2)), expected)


def _cut_aucs(grades: Grades, weights: Floats) -> list[Floats]:
    above = grades.cut_probabilities
    return [
        weighted_roc_auc(rank_scores(above[:, cut]), np.asarray(grades.labels > cut), weights)
        for cut in range(len(grades.cuts))
    ]
