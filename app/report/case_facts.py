"""Rank the volumes of a page, and describe what was decided about each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import TypeAlias

import numpy as np

from voxlift.app.evaluation.findings import Findings
from voxlift.app.evaluation.grades import Grades
from voxlift.app.evaluation.numbers import Numbers
from voxlift.app.evaluation.scores import Predictions, Scores
from voxlift.app.report.tables import format_value
from voxlift.data_pipelines.tables.manifest import split_item

MOST_CONFIDENT = "with the highest predicted probability"


@dataclass(frozen=True)
class CaseFacts:
    """What the cases of a page are sorted and filtered by.

    Attributes:
        outcome: True class or grade, or the finding that is shown; empty: none.
        noun: What it is, for the list.
        is_wrong: Whether the decision is wrong; None where there is none to judge.
        error: The larger, the further the prediction is from the table; None where that is unknown.
        confidence: Probability of what was decided, 0..1; None for a number.
        rated: What models are compared by: probability of the true class or of the finding, or the number.
        groups: Column of `evaluation.by` to the group of the subject.
    """

    outcome: str = ""
    noun: str = "Class"
    is_wrong: bool | None = None
    error: float | None = None
    confidence: float | None = None
    rated: float | None = None
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Shown:
    """What a page shows of one volume, and what its map explains.

    Attributes:
        truth: As in `Case`.
        decided: As in `Case`.
        label: Index of the class, finding or cut that the map explains.
        kind: See `models.explain.grad_cam`.
        facts: As in `Case`.
    """

    truth: str
    decided: str
    label: int
    kind: str
    facts: CaseFacts = field(default_factory=CaseFacts)


CaseRow: TypeAlias = tuple[int, int]
"""A row of predictions, and the finding that is shown; the latter is 0 for other predictions."""


def case_headings(scores: Predictions) -> tuple[str, str]:
    """Return the headings above the two groups of `pick_cases`."""
    if isinstance(scores, Numbers):
        return "Largest errors", "Smallest errors"
    if isinstance(scores, Grades):
        return "Largest errors in grades", f"Correct grades {MOST_CONFIDENT}"
    return f"Errors {MOST_CONFIDENT}", f"Correct decisions {MOST_CONFIDENT}"


def rank_cases(scores: Predictions) -> tuple[list[CaseRow], list[CaseRow]]:
    """Return the rows of wrong decisions and of correct ones, in the order in which a page shows them."""
    if isinstance(scores, Numbers):
        order = [(int(row), 0) for row in np.argsort(np.abs(scores.errors), kind="stable")]
        half = len(order) // 2
        return order[::-1][:half], order[:half]
    if isinstance(scores, Findings):
        decided = np.where(scores.decisions == 1, scores.probabilities, 1 - scores.probabilities)
        known = [(int(row), int(k)) for row, k in np.argwhere(scores.is_known)]
        known.sort(key=lambda cell: -decided[cell])
        is_right = scores.decisions == scores.labels
        return [cell for cell in known if not is_right[cell]], [cell for cell in known if is_right[cell]]
    if not isinstance(scores, Scores):
        return [], []
    decided = scores.probabilities[np.arange(len(scores)), scores.decisions]
    ranked = np.argsort(-decided, kind="stable")
    steps = np.abs(scores.decisions - scores.labels)
    wrong, right = ranked[steps[ranked] > 0], ranked[steps[ranked] == 0]
    if isinstance(scores, Grades):
        wrong = wrong[np.argsort(-steps[wrong], kind="stable")]
    return [(int(row), 0) for row in wrong], [(int(row), 0) for row in right]


def describe_row(scores: Predictions, row: int, output: int = 0) -> Shown:
    """Return what a page shows of one row.

    Args:
        scores: The predictions.
        row: Of them.
        output: Of findings: which one is shown.

    Raises:
        TypeError: The predictions are of no kind that a page shows.
    """
    if isinstance(scores, Numbers):
        return _describe_number(scores, row)
    if isinstance(scores, Findings):
        return _describe_finding(scores, row, output)
    if not isinstance(scores, Scores):
        raise TypeError(f"{type(scores).__name__} cannot be shown.")
    return _describe_class(scores, row)


def _describe_number(scores: Numbers, row: int) -> Shown:
    unit = f" {scores.unit}" if scores.unit else ""
    truth, value = (format_value(float(number)) for number in (scores.labels[row], scores.values[row]))
    facts = CaseFacts(error=abs(float(scores.errors[row])), rated=float(scores.values[row]))
    return Shown(f"measured {truth}{unit}", f"predicted {value}{unit}", 0, "number", facts)


def _describe_finding(scores: Findings, row: int, output: int) -> Shown:
    words = {0.0: "absent", 1.0: "present"}
    label, decision = float(scores.labels[row, output]), float(scores.decisions[row, output])
    p, name = float(scores.probabilities[row, output]), scores.names[output]
    threshold = scores.thresholds[output]
    decided = f"decided {words[decision]}: probability of {name} {p:.3f}, threshold {threshold:.3f}"
    is_known = label in words
    facts = CaseFacts(
        outcome=name,
        noun="Finding",
        is_wrong=decision != label if is_known else None,
        error=abs(p - label) if is_known else None,
        confidence=p if decision == 1 else 1 - p,
        rated=p,
    )
    return Shown(f"{name} {words.get(label, 'unknown')}", decided, output, "finding", facts)


def _describe_class(scores: Scores, row: int) -> Shown:
    """Return what a page shows of a class or grade; of two classes the probability of the positive one."""
    label, true = int(scores.decisions[row]), int(scores.labels[row])
    p = scores.probabilities[row]
    named = 1 if scores.is_binary else label
    decided = f"decided {scores.classes[label]}: probability of {scores.classes[named]} {p[named]:.3f}"
    decided += f", threshold {scores.threshold:.3f}" if scores.is_binary else ""
    steps = abs(label - true) if isinstance(scores, Grades) else 0
    facts = CaseFacts(
        outcome=scores.classes[true],
        is_wrong=label != true,
        error=steps + 1 - float(p[true]),
        confidence=float(p[label]),
        rated=float(p[true]),
    )
    if isinstance(scores, Grades):
        facts = replace(facts, noun="Grade")
        return Shown(f"true grade {scores.classes[true]}", decided, max(0, label - 1), "cut", facts)
    return Shown(f"true class {scores.classes[true]}", decided, label, "class", facts)


def name_volume(scores: Predictions, row: int) -> str:
    """Return the subject of a row, see `name_scan`."""
    return name_scan(scores.subjects, scores.items, row)


def name_scan(subjects: Sequence[str], items: Sequence[str], row: int) -> str:
    """Return the subject of a row; of several volumes with the parts of the path that differ.

    >>> name_scan(["sub-01", "sub-01"], ["sub-01/ses-1/T1.nii", "sub-01/ses-2/T1.nii"], 1)
    'sub-01 (ses-2)'

    Args:
        subjects: Of every volume.
        items: Names of the volumes, of the same length.
        row: Of the volume.
    """
    subject = subjects[row]
    same = [item for name, item in zip(subjects, items, strict=False) if name == subject]
    if len(same) < 2:
        return subject
    own = PurePath(split_item(items[row])[0]).parts
    different = [PurePath(split_item(item)[0]) for item in same if item != items[row]]
    others = {part for path in different for part in path.parts}
    distinct = [part for part in own if part not in others]
    return f"{subject} ({'/'.join(distinct) or items[row]})"
