"""Say what difference the test subjects of a comparison could show at all, before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from voxlift.app.comparison.plan import Plan
from voxlift.app.data.cohort import list_subjects
from voxlift.app.evaluation.paired import MARGIN
from voxlift.app.evaluation.sample_size import (
    ASSUMED_AUC,
    ASSUMED_CORRELATION,
    DifferenceVariance,
    planned_error,
    planned_kappa,
    planned_subjects,
    required_subjects,
    smallest_visible_difference,
)
from voxlift.data_pipelines.tables.manifest import Record


def describe_visible_difference(plan: Plan, *, margin: float | None) -> str:
    """Return what difference the test subjects could show at all.

    Args:
        plan: Plan of the comparison; the test subjects of all its folds and seeds count once.
        margin: Smallest difference that matters; None: the default of the task.

    Returns:
        A sentence; empty without test subjects, and without a training to come.
    """
    if all(trial.run.is_finished for trial in plan.trials):
        return ""
    task = plan.settings[0].task
    records, classes = read_test_records(plan)
    counts = [sum(record.label == k for record in records) for k in range(len(classes))]
    text = ""
    if task.name == "classes":
        text = _describe_auc(counts, classes, margin=margin or MARGIN)
    elif task.name == "grades":
        text = _describe_kappa(counts, margin=margin or MARGIN)
    elif task.name == "findings":
        text = _describe_findings(records, margin=margin or MARGIN)
    elif task.name == "number":
        text = _describe_error(records, margin=margin, unit=task.unit)
    return f"{text}, correlation of both models {ASSUMED_CORRELATION:g}." if text else ""


def read_test_records(plan: Plan) -> tuple[list[Record], Sequence[str]]:
    """Return a record of each test subject over all folds and seeds of a comparison, and the classes."""
    records: dict[str, Record] = {}
    by_cell = dict(zip((trial.fold_and_seed for trial in plan.trials), plan.settings, strict=True))
    for settings in by_cell.values():
        manifest, splits = list_subjects(settings)
        pairs = zip(manifest.records, splits, strict=True)
        records |= {record.subject: record for record, split in pairs if split == "test"}
    return list(records.values()), manifest.classes


def _describe_auc(counts: Sequence[int], classes: Sequence[str], *, margin: float) -> str:
    visible = smallest_visible_difference(counts)
    if math.isnan(visible):
        return ""
    listed = ", ".join(f"{count} {name}" for name, count in zip(classes, counts, strict=True))
    return (
        f"With {sum(counts)} test subjects ({listed}), differences of AUC below {visible:.2f} cannot be "
        f"told; one of {margin:g} needs about {planned_subjects(margin)} of each class for 80 % power. "
        "voxlift-study study=sample_size computes it from results. "
        f"Assumed: AUC {ASSUMED_AUC:g}"
    )


def _describe_kappa(counts: Sequence[int], *, margin: float) -> str:
    if sum(count > 0 for count in counts) < 2:
        return ""
    (kappa, error), subjects = planned_kappa(counts), sum(counts)
    variance = DifferenceVariance(error**2 * subjects)
    return (
        f"With {subjects} test subjects, differences of the quadratic kappa below "
        f"{variance.width(subjects) / 2:.2f} cannot be told; one of {margin:g} needs about "
        f"{required_subjects(variance, margin, power=0.8)} for 80 % power. Assumed: kappa {kappa:.2f}"
    )


def _describe_findings(records: Sequence[Record], *, margin: float) -> str:
    """Return the sentence for the mean AUC of findings; that of dependent findings is an upper bound."""
    columns = np.array([record.targets for record in records]).T
    every = [smallest_visible_difference([int((own == value).sum()) for value in (0, 1)]) for own in columns]
    visible = [one for one in every if math.isfinite(one)]
    if not visible:
        return ""
    return (
        f"With {len(records)} test subjects, differences of the mean AUC of the findings below "
        f"{np.mean(visible):.2f} cannot be told, somewhat smaller ones if the findings are independent. "
        f"One of {margin:g} in a finding needs about {planned_subjects(margin)} subjects with it and as many "
        f"without it for 80 % power. Assumed: AUC {ASSUMED_AUC:g}"
    )


def _describe_error(records: Sequence[Record], *, margin: float | None, unit: str) -> str:
    if len(records) < 2:
        return ""
    error, per_subject = planned_error([record.targets[0] for record in records])
    variance, aim = DifferenceVariance(per_subject), margin or error / 10
    needed = required_subjects(variance, aim, power=0.8)
    in_unit = f" {unit}" if unit else ""
    return (
        f"With {len(records)} test subjects, differences of the mean absolute error below "
        f"{variance.width(len(records)) / 2:.3g}{in_unit} cannot be told; one of {aim:.3g} needs about "
        f"{needed} for 80 % power. Assumed: errors as of always predicting the median, {error:.3g}{in_unit}"
    )
