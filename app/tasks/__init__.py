"""What is predicted, the group `task`: one object per task owns all that differs between them.

A module asks the object; it never asks for the task's name. `base.Task` documents the methods, with shapes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voxlift.app.tasks.base import Task

TASK_NAMES = ("classes", "findings", "grades", "number")


def find_task(name: str, unit: str = "", *, is_paired: bool = False, top_k: int = 5) -> Task:
    """Return the task of a name of `TASK_NAMES`.

    Args:
        name: Of the task.
        unit: Of a number.
        is_paired: Of classes, as in `Scores`.
        top_k: Of classes, as in `Scores`.
    """
    # Late: `--help` and the schema answer without numpy.
    from voxlift.app.tasks.classes import Classes
    from voxlift.app.tasks.findings import FindingsTask
    from voxlift.app.tasks.grades import GradesTask
    from voxlift.app.tasks.number import NumberTask

    tasks: tuple[Task, ...] = (Classes(is_paired, top_k), FindingsTask(), GradesTask(), NumberTask(unit))
    return next(task for task in tasks if task.name == name)


def task_of(settings: Any) -> Task:  # noqa: ANN401 - any settings with the group `task`
    """Return the task that the settings of a command name."""
    task = settings.task
    if not hasattr(settings, "evaluation"):  # of a command that scores nothing
        return find_task(task.name, task.unit)
    evaluation = settings.evaluation
    is_paired = evaluation.paired_within is not None
    return find_task(task.name, task.unit, is_paired=is_paired, top_k=evaluation.top_k)
