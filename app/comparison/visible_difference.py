"""The difference that the test subjects of a comparison could show at all, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from voxlift.app.comparison.plan import Plan
from voxlift.app.data.cohort import list_subjects
from voxlift.app.evaluation.sample_size import ASSUMED_CORRELATION
from voxlift.app.tasks.base import task_of
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
    records, names = read_test_records(plan)
    text = task_of(plan.settings[0]).describe_visible_difference(records, tuple(names), margin=margin)
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
