"""Bring two models' scores onto the same volumes, fold by fold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voxlift.app.evaluation.intervals import Cells
from voxlift.app.evaluation.scores import Scores, ScoresError, shorten, take


def as_cells(scores: Scores | Sequence[Scores]) -> Cells:
    """One model's scores as a sequence of cells, one per fold and seed."""
    return (scores,) if isinstance(scores, Scores) else tuple(scores)


def align_cells(
    first: Scores | Sequence[Scores], second: Scores | Sequence[Scores]
) -> tuple[tuple[Scores, ...], tuple[Scores, ...]]:
    """Both models' cells, those of the second with their rows in the order of the first's.

    Raises:
        ScoresError: Another number of cells, other classes, other volumes, or other labels for the same
            volume.
    """
    left, right = as_cells(first), as_cells(second)
    if len(left) != len(right) or not left:
        raise ScoresError(
            f"expected both models on the same folds and seeds, got {len(left)} and {len(right)} sets of "
            "scores"
        )
    return tuple(left), tuple(align(a, b) for a, b in zip(left, right, strict=True))


def align(reference: Scores, other: Scores) -> Scores:
    """The rows of `other` in the order of `reference`.

    Raises:
        ScoresError: The two were not scored on the same volumes with the same labels and classes.
    """
    if reference.classes != other.classes:
        raise ScoresError(
            f"classes differ: {', '.join(reference.classes)} against {', '.join(other.classes)}"
        )
    rows = {key: row for row, key in enumerate(other.keys)}
    if len(rows) != len(other) or len(set(reference.keys)) != len(reference):
        raise ScoresError("a volume occurs twice in one set of scores: expected each subject and item once")
    strangers = sorted({subject for subject, _ in set(reference.keys) ^ set(rows)})
    if strangers:
        raise ScoresError(f"scored on different volumes; only one model has those of {shorten(strangers)}")
    aligned = take(other, (rows[key] for key in reference.keys))
    changed = np.flatnonzero(aligned.labels != reference.labels)
    if len(changed):
        names = sorted({reference.subjects[row] for row in changed})
        raise ScoresError(f"labels differ between the two models for {shorten(names)}")
    return aligned


def subject_codes(cells: Cells) -> tuple[int, list[np.ndarray[tuple[int], np.dtype[np.int64]]]]:
    """Number of subjects over all cells, and each cell's index [N] into them."""
    names = sorted({subject for cell in cells for subject in cell.subjects})
    position = {name: index for index, name in enumerate(names)}
    codes = [np.array([position[subject] for subject in cell.subjects], dtype=np.int64) for cell in cells]
    return len(names), codes
