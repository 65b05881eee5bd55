"""`voxlift-study`: answer a question about training by experiment, with a table, figures and a page."""

from __future__ import annotations

import sys
from collections.abc import Callable

from omegaconf import DictConfig

from voxlift.app.cli.command import run_command
from voxlift.app.config import StudySettings
from voxlift.app.config.overrides import list_given_keys, to_settings
from voxlift.app.runtime.exit_status import DONE
from voxlift.app.studies.folder import StudyFolder, open_study_folder
from voxlift.app.studies.settings import resolve_study

OPEN_KEYS = ("study.space.", "study.vary.")  # groups that may hold any setting of a training


def main() -> None:
    """Run the console script."""
    sys.argv[1:] = [append_open_key(argument) for argument in sys.argv[1:]]
    run_command("study", read=read_settings, job=study)


def append_open_key(argument: str) -> str:
    """Return an override, with the plus signs that Hydra needs for keys outside the schema.

    >>> append_open_key("study.space.model.dropout=[0.0,0.5]")
    '++study.space.model.dropout=[0.0,0.5]'
    """
    return f"++{argument}" if argument.startswith(OPEN_KEYS) else argument


def read_settings(cfg: DictConfig) -> StudySettings:
    """Return the checked settings of a composed configuration, with the budget filled in.

    Raises:
        SettingsError: All problems at once.
    """
    return resolve_study(to_settings(cfg, StudySettings), given=list_given_keys())


def study(settings: StudySettings) -> int:
    """Run the chosen study, or resume it.

    Returns:
        The exit status, 0.

    Raises:
        SettingsError: The study cannot be run, or the folder holds another one.
    """
    _import_study(settings.study.name)(settings, open_study_folder(settings))
    return DONE


def _import_study(name: str) -> Callable[[StudySettings, StudyFolder], None]:
    """Return the function that runs a study; only its own libraries are imported."""
    if name == "batch_size":
        from voxlift.app.studies.batch_size.run import study_batch_size

        return study_batch_size
    if name == "complexity":
        from voxlift.app.studies.complexity.run import study_complexity

        return study_complexity
    if name == "architecture":
        from voxlift.app.studies.architecture.run import study_architecture

        return study_architecture
    if name == "learning_curve":
        from voxlift.app.studies.learning_curve.run import study_learning_curve

        return study_learning_curve
    if name == "sample_size":
        from voxlift.app.studies.sample_size.run import study_sample_size

        return study_sample_size
    from voxlift.app.studies.search.run import study_search

    return study_search


if __name__ == "__main__":
    main()
