"""The study of complexity: every model at every size, each measured in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from voxlift.app.comparison.compose import choose_model, compose_training
from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.config.commands import StudySettings
from voxlift.app.progress import progress_bar, say
from voxlift.app.studies.complexity.laws import Cost
from voxlift.app.studies.complexity.report import report_complexity
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.measuring import Ending, measure
from voxlift.app.studies.trainings import study_overrides

REFUSED = {"model": "say study.models=[...].", "seed": "costs do not depend on it."}


def study_complexity(settings: StudySettings, folder: StudyFolder) -> None:
    """Measure every model at every size; write table, figures and page.

    Raises:
        SettingsError: an override is refused, or no model could be measured at any size.
    """
    study, shared = settings.study, study_overrides(refused=REFUSED)
    trainings = {name: compose_training([*shared, *choose_model(name)]) for name in study.models}
    costs, refusals = measure_costs(trainings, study.scales, steps=int(study.timed_steps), folder=folder)
    if not costs:
        raise SettingsError("\n".join(["no model could be measured at any size:", *refusals]))
    report_complexity(settings, folder, costs, refusals, training=next(iter(trainings.values())))


def measure_costs(
    trainings: dict[str, TrainSettings], scales: Sequence[float], *, steps: int, folder: StudyFolder
) -> tuple[list[Cost], list[str]]:
    """Every model at every scale, and a sentence for each that cannot be: too small a volume, say."""
    costs, refusals = [], []
    with progress_bar("Measurements", len(trainings) * len(scales)) as advance:
        for scale in scales:
            for name, training in trainings.items():
                request = {"kind": "size", "scale": scale, "steps": steps}
                answer = measure(f"{name}-x{scale:g}", training, request, folder=folder, judge=judge_size)
                advance()
                if answer.get("failed"):
                    refusals.append(f"{name} at {scale:g} times the size: {answer['reason']}")
                    say(f"  {refusals[-1]}")
                    continue
                costs.append(_cost(name, answer))
                say(_spoken(costs[-1]))
    return costs, refusals


def judge_size(ending: Ending) -> dict[str, Any]:
    """A child that failed says that the model cannot be measured at that size."""
    return {"failed": True, "reason": ending.sentence}


def _cost(name: str, answer: dict[str, Any]) -> Cost:
    depth, height, width, channels = answer["shape"]
    return Cost(name, (depth, height, width, channels), **{k: v for k, v in answer.items() if k != "shape"})


def _spoken(cost: Cost) -> str:
    sides = "x".join(map(str, cost.shape[:3]))
    return f"  {cost.model} at {sides}: {1000 * cost.train_seconds:.3g} ms to train on a volume"
