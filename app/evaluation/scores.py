"""Predictions of one model for one set of volumes, and the pairing of two models' predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from voxlift.app.errors import FixableError
from voxlift.data_pipelines.errors import list_some

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]

SUM_TOLERANCE = 1e-3  # float16 probabilities and rounded tables stay within it


class ScoresError(FixableError):
    """Scores that cannot be evaluated, or two sets of scores that cannot be compared."""


class Predictions:
    """What a model predicts for N volumes, beside their labels: the base of each task's own class.

    The classes derived from it are immutable dataclasses.

    Attributes:
        subjects: N subject names; a subject with several volumes occurs several times and is resampled as
            one.
        labels: Of the table, [N] or [N, F].
        items: N names (image paths) that distinguish a subject's volumes; empty: their order within the
            subject does.
        predicted: Name of the field that holds the predictions, [N] or [N, K].
        is_stratified: Whether subjects are resampled within each label, so that every class stays as
            frequent as it is.
        primary: Key of the metric that a verdict is about.
    """

    subjects: tuple[str, ...]
    labels: Any
    items: tuple[str, ...]
    predicted: ClassVar[str] = "probabilities"
    is_stratified: ClassVar[bool] = False
    primary: ClassVar[str] = "auc"
    unit = ""  # of the metrics that have one

    @property
    def headline(self) -> tuple[str, ...]:
        """Keys of the metrics that a short table shows."""
        return ("auc", "balanced_accuracy", "accuracy")

    def __len__(self) -> int:
        return len(self.subjects)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what is predicted, in the order of the columns; empty for a single number."""
        return ()

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


AnyPredictions = TypeVar("AnyPredictions", bound=Predictions)


@dataclass(frozen=True, eq=False)
class Scores(Predictions):
    """Labels and predicted probabilities of N volumes, immutable.

    Attributes:
        subjects: N subject names; a subject with several volumes occurs several times and is resampled as
            one.
        labels: [N] int64, index into `classes`.
        probabilities: [N, K] float64 in 0..1, rows sum to 1.
        classes: K class names in index order; for two classes, index 1 is the positive one.
        items: N names (image paths) that distinguish a subject's volumes; empty: their order within the
            subject does.
        threshold: Two classes only: class 1 is predicted where its probability is at least this. Chosen on
            validation.
        is_paired: Whether the scans of one subject are compared with each other, for the forced choice.
        top_k: Of more classes than this, how many of the most probable ones the top-k accuracy counts; 0: no
            such accuracy.
    """

    subjects: tuple[str, ...]
    labels: Integers
    probabilities: Floats
    classes: tuple[str, ...]
    items: tuple[str, ...] = ()
    threshold: float = 0.5
    is_paired: bool = False
    top_k: int = 0
    is_stratified: ClassVar[bool] = True

    def __post_init__(self) -> None:
        set_field = object.__setattr__  # the only way to normalise the values of a frozen dataclass
        set_field(self, "subjects", tuple(str(subject) for subject in self.subjects))
        set_field(self, "items", tuple(str(item) for item in self.items))
        set_field(self, "classes", tuple(str(name) for name in self.classes))
        set_field(self, "labels", np.array(self.labels, dtype=np.int64))
        set_field(self, "probabilities", np.array(self.probabilities, dtype=np.float64))
        self.labels.setflags(write=False)
        self.probabilities.setflags(write=False)
        _check_shapes(self)
        _check_values(self)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The class names."""
        return self.classes

    @property
    def headline(self) -> tuple[str, ...]:
        """Keys of the metrics that a short table shows."""
        top = (f"top{self.top_k}_accuracy",) if self.has_top_k else ()
        return (*super().headline, *top, *(("forced_choice",) if self.is_paired else ()))

    @property
    def has_top_k(self) -> bool:
        """True where `top_k` is given and there are more classes."""
        return 0 < self.top_k < len(self.classes)

    @property
    def is_binary(self) -> bool:
        """True for two classes, where a threshold on class 1 decides."""
        return len(self.classes) == 2

    @property
    def decisions(self) -> Integers:
        """[N] int64 predicted class: by `threshold` for two classes, else the most probable."""
        if self.is_binary:
            return (self.probabilities[:, 1] >= self.threshold).astype(np.int64)
        most: Integers = self.probabilities.argmax(axis=1)
        return most


Fits: TypeAlias = Sequence[Predictions]
"""One model's predictions, one entry per fit: per fold and training seed, always in the same order."""

ClassFits: TypeAlias = Sequence[Scores]
"""The same of a model of classes."""


def fits_of(kind: type[AnyPredictions], *models: Fits) -> list[list[AnyPredictions]] | None:
    """Return the fits of each model if all of them are predictions of one kind, else None."""
    found = [[fit for fit in fits if isinstance(fit, kind)] for fits in models]
    return found if list(map(len, found)) == list(map(len, models)) else None


def with_threshold(scores: Scores, threshold: float) -> Scores:
    """Return the same scores with another decision threshold."""
    return replace(scores, threshold=float(threshold))


def select_rows(scores: AnyPredictions, rows: Iterable[int]) -> AnyPredictions:
    """Return the predictions of some rows, in the order given."""
    chosen = np.fromiter(rows, dtype=np.int64)
    changed = {
        "subjects": tuple(scores.subjects[row] for row in chosen),
        "items": tuple(scores.items[row] for row in chosen) if scores.items else (),
        "labels": scores.labels[chosen],
        scores.predicted: getattr(scores, scores.predicted)[chosen],
    }
    return replace_fields(scores, changed)


def average_by_subject(scores: AnyPredictions) -> AnyPredictions:
    """Return one row per subject, sorted by name: the mean prediction over the subject's volumes.

    Raises:
        ScoresError: A subject's volumes carry different labels.
    """
    names, inverse = np.unique(np.array(scores.subjects, dtype=object), return_inverse=True)
    first = np.array([int(np.flatnonzero(inverse == code)[0]) for code in range(len(names))])
    mixed = _differing_rows(scores.labels, scores.labels[first][inverse])
    if len(mixed):
        subjects = list_some(sorted({scores.subjects[row] for row in mixed}))
        raise ScoresError(
            f"Expected one label per subject, found several for {subjects}: evaluate per volume instead."
        )
    is_own = inverse[None, :] == np.arange(len(names))[:, None]  # [S, N]
    predicted = getattr(scores, scores.predicted)
    counts = is_own.sum(axis=1).reshape(-1, *[1] * (predicted.ndim - 1))
    changed = {"subjects": tuple(names), "items": (), "labels": scores.labels[first]}
    return replace_fields(scores, changed | {scores.predicted: is_own @ predicted / counts})


def as_fits(scores: AnyPredictions | Sequence[AnyPredictions]) -> Sequence[AnyPredictions]:
    """Return one model's predictions as a sequence with one entry per fit."""
    return (scores,) if isinstance(scores, Predictions) else tuple(scores)


def align_fits(
    first: AnyPredictions | Sequence[AnyPredictions], second: AnyPredictions | Sequence[AnyPredictions]
) -> tuple[Sequence[AnyPredictions], Sequence[AnyPredictions]]:
    """Return both models' fits, those of the second with their rows in the order of the first's.

    Raises:
        ScoresError: The number of fits, the classes, the volumes or a volume's label differ.
    """
    left, right = as_fits(first), as_fits(second)
    if len(left) != len(right) or not left:
        raise ScoresError(
            f"Expected both models on the same folds and seeds, received {len(left)} and {len(right)} sets "
            "of scores."
        )
    return left, tuple(align_scores(a, b) for a, b in zip(left, right, strict=True))


def align_scores(reference: AnyPredictions, other: AnyPredictions) -> AnyPredictions:
    """Return the rows of `other` in the order of `reference`.

    Raises:
        ScoresError: The two were not scored on the same volumes with the same labels and classes.
    """
    if reference.outputs != other.outputs or type(reference) is not type(other):
        raise ScoresError(f"The classes differ: {_described(reference)} and {_described(other)}.")
    rows = {key: row for row, key in enumerate(other.keys)}
    if len(rows) != len(other) or len(set(reference.keys)) != len(reference):
        raise ScoresError("Expected each pair of subject and item once, but a volume occurs twice.")
    unpaired = sorted({subject for subject, _ in set(reference.keys) ^ set(rows)})
    if unpaired:
        raise ScoresError(
            f"The models were scored on different volumes; only one has those of {list_some(unpaired)}."
        )
    aligned = select_rows(other, (rows[key] for key in reference.keys))
    changed = _differing_rows(aligned.labels, reference.labels)
    if len(changed):
        names = sorted({reference.subjects[row] for row in changed})
        raise ScoresError(f"The labels differ between the two models for {list_some(names)}.")
    return aligned


def replace_fields(scores: AnyPredictions, changed: dict[str, Any]) -> AnyPredictions:
    """Return the predictions with some fields changed, by name."""
    copied: Any = replace(scores, **changed)  # type: ignore[type-var] # every derived class is a dataclass
    result: AnyPredictions = copied
    return result


def _described(scores: Predictions) -> str:
    return ", ".join(scores.outputs) or type(scores).__name__


def _differing_rows(first: NDArray[Any], second: NDArray[Any]) -> Integers:
    """Return the rows in which two arrays of labels differ; an unknown label (nan) equals another one."""
    differs = (first != second) & ~(np.isnan(first) & np.isnan(second))
    return np.flatnonzero(differs.reshape(len(first), -1).any(axis=1))


def index_subjects(fits: Fits) -> tuple[tuple[str, ...], list[Integers]]:
    """Return the sorted names of all subjects, and for each fit the index [N] of each row's subject."""
    names = tuple(sorted({subject for fit in fits for subject in fit.subjects}))
    position = {name: index for index, name in enumerate(names)}
    return names, [np.array([position[subject] for subject in fit.subjects], np.int64) for fit in fits]


def _check_shapes(scores: Scores) -> None:
    rows, classes = len(scores.subjects), len(scores.classes)
    found = (scores.labels.shape, scores.probabilities.shape)
    if found != ((rows,), (rows, classes)) or (scores.items and len(scores.items) != rows):
        raise ScoresError(
            f"Expected {rows} labels and a {rows} x {classes} table of probabilities (subjects x classes), "
            f"received labels {found[0]}, probabilities {found[1]} and {len(scores.items)} items."
        )
    if rows == 0 or classes < 2:
        raise ScoresError(
            f"Expected at least one volume and two classes, received {rows} volumes and {classes} classes."
        )
    if scores.threshold != 0.5 and classes != 2:
        raise ScoresError(
            f"A threshold needs two classes, received {classes}: with more, the most probable class is taken."
        )


def _check_values(scores: Scores) -> None:
    p = scores.probabilities
    outside = (scores.labels < 0) | (scores.labels >= len(scores.classes))
    with np.errstate(invalid="ignore"):
        wrong = ~np.isfinite(p).all(axis=1) | (p < 0).any(axis=1) | (p > 1 + SUM_TOLERANCE).any(axis=1)
        wrong |= np.abs(p.sum(axis=1) - 1) > SUM_TOLERANCE
    problems = []
    if outside.any():
        problems.append(
            f"Labels outside 0..{len(scores.classes) - 1} for subjects {_named(scores, outside)}."
        )
    if wrong.any():
        problems.append(
            "Probabilities that are not finite, not within 0..1 or do not sum to 1 for subjects "
            f"{_named(scores, wrong)}."
        )
    if problems:
        raise ScoresError("\n".join(problems))


def _named(scores: Scores, rows: Flags) -> str:
    return list_some([scores.subjects[row] for row in np.flatnonzero(rows)])
