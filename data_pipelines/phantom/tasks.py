"""The tasks of the phantom, and what each subject is drawn with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

PHANTOM_CLASSES: dict[str, tuple[str, ...]] = {
    "nodule": ("vessel", "nodule"),
    "chirality": ("left", "right"),
    "winding": ("loose", "medium", "tight"),
}
PHANTOM_FINDINGS: dict[str, tuple[str, ...]] = {"signs": ("nodule", "calcified")}
PHANTOM_TASKS = {
    "nodule": "classes",
    "chirality": "classes",
    "winding": "grades",
    "pitch": "number",
    "signs": "findings",
}  # to the option of the group `task`; a new one comes last, since its place is part of the random seed
PITCHES_MM = (24.0, 60.0)  # of the number
GRADE_PITCHES_MM = ((48.0, 58.0), (34.0, 40.0), (23.0, 27.0))
CALCIFIED, UNKNOWN = 0.35, 0.2  # shares of the subjects


@dataclass(frozen=True)
class Truth:
    """What is drawn for a subject, and what its row of the table says.

    Attributes:
        label: Class or grade; of `signs`, whether a bead is beside the row; 0 for a number.
        pitch_mm: Of the helix; None: drawn with the scene.
        is_calcified: Whether the structure is dense.
        targets: The number, or the findings, of which an unknown one is nan; empty for classes and grades.
    """

    label: int = 0
    pitch_mm: float | None = None
    is_calcified: bool = False
    targets: tuple[float, ...] = ()


def draw_truth(index: int, *, task: str, seed: int) -> Truth:
    """Return what a subject is drawn with.

    Args:
        index: Number of the subject, from 0.
        task: One of `PHANTOM_TASKS`.
        seed: Of the data set.
    """
    rng = np.random.default_rng((seed, index, 5))
    if task == "pitch":
        pitch = round(float(rng.uniform(*PITCHES_MM)), 1)
        return Truth(pitch_mm=pitch, targets=(pitch,))
    if task == "winding":
        grade = int(index + np.random.default_rng((seed, index // 3, 6)).integers(3)) % 3
        return Truth(grade, pitch_mm=float(rng.uniform(*GRADE_PITCHES_MM[grade])))
    # Each pair has both classes, in random order.
    label = int(index + np.random.default_rng((seed, index // 2, 2)).integers(2)) % 2
    if task != "signs":
        return Truth(label)
    is_calcified, is_unknown = bool(rng.random() < CALCIFIED), bool(rng.random() < UNKNOWN)
    return Truth(label, None, is_calcified, (float(label), math.nan if is_unknown else float(is_calcified)))


def classes_of_task(task: str) -> tuple[str, ...]:
    """Return the classes of a task in index order; none where it has findings or a number."""
    return PHANTOM_CLASSES.get(task, ())


def findings_of_task(task: str) -> tuple[str, ...]:
    """Return the columns of the findings of a task; none where it has other labels."""
    return PHANTOM_FINDINGS.get(task, ())


def label_columns(task: str) -> tuple[str, ...]:
    """Return the columns of the table that hold the label."""
    return findings_of_task(task) or ("label",)


def label_cells(truth: Truth, task: str) -> tuple[str, ...]:
    """Return the cells of `label_columns`."""
    if task in PHANTOM_CLASSES:
        return (PHANTOM_CLASSES[task][truth.label],)
    return tuple("" if math.isnan(value) else f"{value:g}" for value in truth.targets)
