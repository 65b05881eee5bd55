"""`voxlift-study`: a question about training answered by experiment, with a table, figures and a page."""

from __future__ import annotations

import sys
from collections.abc import Callable

from omegaconf import DictConfig

from voxlift.app.cli.command import open_command
from voxlift.app.config.commands import StudySettings, register_study_schemas
from voxlift.app.config.overrides import given_keys, to_settings
from voxlift.app.studies.budget import resolve_study
from voxlift.app.studies.folder import StudyFolder, open_folder

OPEN_KEYS = ("study.space.", "study.vary.")  # any setting of a training may stand under them


def main() -> None:
    """The console script."""
    register_study_schemas()
    sys.argv[1:] = [append_open_key(argument) for argument in sys.argv[1:]]
    open_command("study", read=read_settings, job=study)


def append_open_key(argument: str) -> str:
    """An override of a space with the plus signs that Hydra wants for keys that no schema knows.

    >>> append_open_key("study.space.model.dropout=[0.0,0.5]")
    '++study.space.model.dropout=[0.0,0.5]'
    """
    return f"++{argument}" if argument.startswith(OPEN_KEYS) else argument


def read_settings(cfg: DictConfig) -> StudySettings:
    """The composed configuration as values, with the budget filled in, checked.

    Raises:
        SettingsError: listing every problem.
    """
    return resolve_study(to_settings(cfg, StudySettings), given=given_keys())


def study(settings: StudySettings) -> int:
    """Run the study that the settings name, or what is left of it.

    Returns:
        The exit status, 0.

    Raises:
        SettingsError: the settings name no study that can be run, or the folder holds another one.
    """
    _runner(settings.study.name)(settings, open_folder(settings))
    return 0


def _runner(name: str) -> Callable[[StudySettings, StudyFolder], None]:
    """A study's function, imported when it is asked for: each brings libraries of its own."""
    if name == "batch_size":
        from voxlift.app.studies.batch_size.run import study_batch_size

        return study_batch_size
    if name == "complexity":
        from voxlift.app.studies.complexity.run import study_complexity

        return study_complexity
    if name == "architecture":
        from voxlift.app.studies.architecture.run import study_architecture

        return study_architecture
    from voxlift.app.studies.search.run import study_search

    return study_search


if __name__ == "__main__":
    main()
