"""Run the study of complexity: every model at every size, each measured in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from voxlift.app.comparison.check import check_trainings
from voxlift.app.comparison.compose import build_model_overrides, compose_training
from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.config.commands import StudySettings
from voxlift.app.progress import print_line, progress_bar
from voxlift.app.studies.complexity.laws import ModelCost
from voxlift.app.studies.complexity.report import report_complexity
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.measurement_process import FailedMeasurement, measure
from voxlift.app.studies.settings import refuse_joined, refuse_without_network
from voxlift.app.studies.trainings import read_study_overrides

REFUSED = {"model": "use study.models=[...].", "seed": "costs do not depend on it."}


def study_complexity(settings: StudySettings, folder: StudyFolder) -> None:
    """Measure every model at every size; write table, figures and page.

    Raises:
        SettingsError: An override is refused, or no model could be measured at any size.
    """
    study, shared = settings.study, read_study_overrides(refused=REFUSED)
    trainings = {name: compose_training([*shared, *build_model_overrides(name)]) for name in study.models}
    refuse_without_network(training.model for training in trainings.values())
    refuse_joined(training.model for training in trainings.values())
    if 1.0 in study.scales:  # a model that fails at another size is left out there
        check_trainings(trainings)
    costs, failures = measure_costs(trainings, study.scales, steps=int(study.timed_steps), folder=folder)
    if not costs:
        raise SettingsError("\n".join(["No model could be measured at any size:", *failures]))
    report_complexity(settings, folder, costs, failures, training=next(iter(trainings.values())))


def measure_costs(
    trainings: dict[str, TrainSettings], scales: Sequence[float], *, steps: int, folder: StudyFolder
) -> tuple[list[ModelCost], list[str]]:
    """Measure every model at every scale.

    Args:
        trainings: Settings by name of the model.
        scales: Factors of every side of the volume.
        steps: Calls that are timed.
        folder: Folder of the study.

    Returns:
        The costs, and a sentence for each measurement that failed, for example on too small a volume.
    """
    costs, failures = [], []
    with progress_bar("Measurements", len(trainings) * len(scales)) as advance:
        for scale in scales:
            for name, training in trainings.items():
                request = {"kind": "size", "scale": scale, "steps": steps}
                answer = measure(
                    f"{name}-x{scale:g}", training, request, folder=folder, interpret=interpret_failure
                )
                advance()
                if answer.get("failed"):
                    failures.append(f"{name} at {scale:g} times the size: {answer['reason']}")
                    print_line(f"  {failures[-1]}")
                    continue
                depth, height, width, channels = answer.pop("shape")
                cost = ModelCost(name, (depth, height, width, channels), **answer)
                costs.append(cost)
                milliseconds = f"{1000 * cost.train_seconds:.3g} ms"
                print_line(f"  {name} at {depth}x{height}x{width}: {milliseconds} to train on a volume")
    return costs, failures


def interpret_failure(failed: FailedMeasurement) -> dict[str, Any]:
    """Return the answer of a failed measurement: the model cannot be measured at that size."""
    return {"failed": True, "reason": failed.message}
