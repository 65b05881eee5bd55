"""`voxlift-study`: answer a question about training by experiment, with a table, figures and a page."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

from omegaconf import DictConfig

from voxlift.app.cli.command import run_command
from voxlift.app.config import StudySettings
from voxlift.app.config.overrides import list_given_keys, to_settings
from voxlift.app.progress import print_line
from voxlift.app.runtime.cluster import format_job_script
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
    if settings.cluster.dry_run:
        print_line(format_job_script(settings.cluster))
        return DONE
    _import_study(settings.study.name)(settings, open_study_folder(settings))
    return DONE


def _import_study(name: str) -> Callable[[StudySettings, StudyFolder], None]:
    """Return the function that runs a study; only its own libraries are imported."""
    module = import_module(f"voxlift.app.studies.{name}.run")
    run: Callable[[StudySettings, StudyFolder], None] = getattr(module, f"study_{name}")
    return run


if __name__ == "__main__":
    main()
