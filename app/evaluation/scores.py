"""Scores of one model on one set of volumes: the value that every metric, interval and test takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from voxlift.app.errors import MendableError

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

SHOWN = 10
SUM_TOLERANCE = 1e-3  # float16 probabilities and rounded tables stay within it


class ScoresError(MendableError):
    """Scores that cannot be evaluated, or two sets of scores that cannot be compared."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Labels and predicted probabilities of N volumes, which stay together and never change.

    Attributes:
        subjects: N subject names; a subject with several volumes occurs several times and is resampled as
            one.
        labels: [N] int64, index into `classes`.
        probabilities: [N, K] float64 in 0..1, rows sum to 1.
        classes: K class names in index order; for two classes, index 1 is the positive one.
        items: N names (image paths) that tell a subject's volumes apart; empty: their order within the
            subject does.
        threshold: two classes only: class 1 is decided where its probability is at least this. Chosen on
            validation.
    """

    subjects: tuple[str, ...]
    labels: Integers
    probabilities: Floats
    classes: tuple[str, ...]
    items: tuple[str, ...] = ()
    threshold: float = 0.5

    def __post_init__(self) -> None:
        set_field = object.__setattr__  # frozen: the only door for normalised values
        set_field(self, "subjects", tuple(str(subject) for subject in self.subjects))
        set_field(self, "items", tuple(str(item) for item in self.items))
        set_field(self, "classes", tuple(str(name) for name in self.classes))
        set_field(self, "labels", _frozen(np.array(self.labels, dtype=np.int64)))
        set_field(self, "probabilities", _frozen(np.array(self.probabilities, dtype=np.float64)))
        _check_shapes(self)
        _check_values(self)

    def __len__(self) -> int:
        return len(self.subjects)

    @property
    def is_binary(self) -> bool:
        """True for two classes, where a threshold on class 1 decides."""
        return len(self.classes) == 2

    @property
    def decisions(self) -> Integers:
        """[N] int64 decided class: by `threshold` for two classes, else the most probable."""
        if self.is_binary:
            return (self.probabilities[:, 1] >= self.threshold).astype(np.int64)
        most: Integers = self.probabilities.argmax(axis=1)
        return most

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        """N pairs (subject, item) that identify a volume across models."""
        if self.items:
            return tuple(zip(self.subjects, self.items, strict=True))
        seen: Counter[str] = Counter()
        keys = []
        for subject in self.subjects:
            keys.append((subject, str(seen[subject])))
            seen[subject] += 1
        return tuple(keys)


def with_threshold(scores: Scores, threshold: float) -> Scores:
    """The same scores, decided at another threshold."""
    return replace(scores, threshold=float(threshold))


def take(scores: Scores, rows: Iterable[int]) -> Scores:
    """The scores of some rows, in the order given."""
    chosen = np.fromiter(rows, dtype=np.int64)
    return replace(
        scores,
        subjects=tuple(scores.subjects[row] for row in chosen),
        items=tuple(scores.items[row] for row in chosen) if scores.items else (),
        labels=scores.labels[chosen],
        probabilities=scores.probabilities[chosen],
    )


def average_by_subject(scores: Scores) -> Scores:
    """One row per subject, sorted by name: the mean probability over the subject's volumes.

    Raises:
        ScoresError: a subject's volumes carry different labels.
    """
    names, inverse = np.unique(np.array(scores.subjects, dtype=object), return_inverse=True)
    first = np.array([int(np.flatnonzero(inverse == code)[0]) for code in range(len(names))])
    mixed = sorted(
        {scores.subjects[row] for row in np.flatnonzero(scores.labels != scores.labels[first][inverse])}
    )
    if mixed:
        raise ScoresError(
            f"expected one label per subject, found several for {shorten(mixed)}: score volume by volume"
        )
    member = inverse[None, :] == np.arange(len(names))[:, None]  # [S, N]
    means = member @ scores.probabilities / member.sum(axis=1, keepdims=True)
    return replace(scores, subjects=tuple(names), items=(), labels=scores.labels[first], probabilities=means)


def shorten(names: Sequence[object]) -> str:
    """The first ten names, and how many more there are."""
    listed = ", ".join(str(name) for name in names[:SHOWN])
    return listed if len(names) <= SHOWN else f"{listed} and {len(names) - SHOWN} more"


def _frozen(array: NDArray[np.generic]) -> NDArray[np.generic]:
    array.setflags(write=False)
    return array


def _check_shapes(scores: Scores) -> None:
    rows, kinds = len(scores.subjects), len(scores.classes)
    found = (scores.labels.shape, scores.probabilities.shape)
    if found != ((rows,), (rows, kinds)) or (scores.items and len(scores.items) != rows):
        raise ScoresError(
            f"expected {rows} labels and a {rows} x {kinds} table of probabilities (subjects x classes), got "
            f"labels {found[0]}, probabilities {found[1]} and {len(scores.items)} items"
        )
    if rows == 0 or kinds < 2:
        raise ScoresError(
            f"expected at least one volume and two classes, got {rows} volumes and {kinds} classes"
        )
    if scores.threshold != 0.5 and kinds != 2:
        raise ScoresError(
            f"a threshold decides between two classes, got {kinds}: the most probable class is taken"
        )


def _check_values(scores: Scores) -> None:
    p = scores.probabilities
    outside = (scores.labels < 0) | (scores.labels >= len(scores.classes))
    with np.errstate(invalid="ignore"):
        wrong = ~np.isfinite(p).all(axis=1) | (p < 0).any(axis=1) | (p > 1 + SUM_TOLERANCE).any(axis=1)
        wrong |= np.abs(p.sum(axis=1) - 1) > SUM_TOLERANCE
    problems = []
    if outside.any():
        problems.append(f"labels outside 0..{len(scores.classes) - 1} for subjects {_named(scores, outside)}")
    if wrong.any():
        problems.append(
            "probabilities that are not finite, not within 0..1 or do not sum to 1 for subjects "
            + _named(scores, wrong)
        )
    if problems:
        raise ScoresError("; ".join(problems))


def _named(scores: Scores, rows: NDArray[np.bool_]) -> str:
    return shorten([scores.subjects[row] for row in np.flatnonzero(rows)])
