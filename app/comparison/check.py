"""Check the trainings of several models before any of them reads an image.

The networks are built in a child process: this process neither imports Keras nor takes memory of a GPU.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from voxlift.app.comparison.plan import Plan
from voxlift.app.config import TrainSettings
from voxlift.app.errors import refuse_problems
from voxlift.app.files import read_json, write_json
from voxlift.app.progress import phase
from voxlift.app.runs.configuration import load_settings, save_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runtime.child import python_module, run_child

PROBLEMS = "problems.json"

log = logging.getLogger("voxlift")


def check_plan(plan: Plan) -> None:
    """Raise an error that lists every model of a comparison whose training cannot start.

    Raises:
        SettingsError: The table, the splits or the network of a model cannot be used.
    """
    trainings: dict[str, TrainSettings] = {}
    for trial, settings in zip(plan.trials, plan.settings, strict=True):
        if not trial.run.is_finished:
            trainings.setdefault(trial.model, settings)
    check_trainings(trainings)


def check_trainings(trainings: Mapping[str, TrainSettings]) -> None:
    """Raise an error that lists every training that cannot start.

    Args:
        trainings: Settings by name of the model.

    Raises:
        SettingsError: The table, the splits or the network of a training cannot be used.
    """
    if not trainings:
        return
    with TemporaryDirectory() as name:
        folder = Path(name)
        for model, settings in trainings.items():
            (folder / model).mkdir()
            save_settings(settings, RunFolder(folder / model))
        command = python_module("voxlift.app.comparison.check", name)
        with phase("Checking the settings of every model"):
            status, reason = run_child(command, log=folder / "log.txt")
        if status:
            log.warning("The settings could not be checked (%s); each training checks its own.", reason)
            return
        problems: dict[str, str] = read_json(folder / PROBLEMS)
    models: dict[str, list[str]] = {}
    for model, problem in problems.items():
        models.setdefault(problem, []).append(model)
    refuse_problems([f"{', '.join(names)}: {problem}" for problem, names in models.items()])


def main() -> int:
    """Check every training in the folder that the command line names, and write `problems.json`."""
    folder, problems = Path(sys.argv[1]), {}
    for config in sorted(folder.glob("*/config.yaml")):
        problem = find_problem(load_settings(RunFolder(config.parent)))
        if problem:
            problems[config.parent.name] = problem
    write_json(folder / PROBLEMS, problems)
    return 0


def find_problem(settings: TrainSettings) -> str:
    """Return why a training cannot start, as far as that is known without its images; empty if it can."""
    from voxlift.app.config.messages import is_user_error
    from voxlift.app.data.cohort import find_subjects
    from voxlift.app.runtime.setup import import_user_modules, prepare_runtime
    from voxlift.app.training.baseline import refuse_seen_subjects
    from voxlift.app.training.stages import build_stages_early
    from voxlift.app.training.without_network import check_model

    # The networks are only built: in any precision, and without the devices that a training uses.
    prepare_runtime(precision="float32", deterministic=False, seed=settings.seed, device="cpu")
    import_user_modules(settings.custom)
    import keras

    keras.utils.clear_session()
    try:
        manifest, splits = find_subjects(settings)
        check_model(settings, manifest)
        refuse_seen_subjects(settings.model, manifest.records, splits)
        build_stages_early(replace(settings, strategy="single"), manifest, splits)
    except Exception as error:
        if is_user_error(error):
            return str(error)
        raise
    return ""


if __name__ == "__main__":
    sys.exit(main())
