"""A study's folder: where its trainings, measurements, table, figures and page lie, and whose it is.

config.yaml       the composed configuration, by which the folder is known again
runs/             a run folder per training
measurements/     a folder per measurement in a child process
logs/             what each training said
figures/          PNG and SVG
table.csv, results.json, report.html
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from omegaconf import OmegaConf

from voxlift.app.config import SettingsError
from voxlift.app.config.commands import STUDIES, StudySettings
from voxlift.app.config.overrides import list_changes, spell_out
from voxlift.app.files import write_text
from voxlift.app.runs.configuration import read_saved
from voxlift.app.runs.folder import refuse_used_folder

# Of a study: filled in by now, or free to be raised.
OPEN = ("study.budget", "study.budgets", "study.trials", "study.confirm_seeds")


@dataclass(frozen=True)
class StudyFolder:
    """The paths of one study."""

    path: Path

    @property
    def config(self) -> Path:
        """The composed configuration (YAML)."""
        return self.path / "config.yaml"

    @property
    def measurements(self) -> Path:
        """A folder per measurement."""
        return self.path / "measurements"

    @property
    def logs(self) -> Path:
        """What the trainings said (text)."""
        return self.path / "logs"

    @property
    def figures(self) -> Path:
        """PNG and SVG files."""
        return self.path / "figures"

    @property
    def table(self) -> Path:
        """One row per point (CSV)."""
        return self.path / "table.csv"

    @property
    def results(self) -> Path:
        """Recommendation, what was varied and what was held fixed, and all figures' numbers (JSON)."""
        return self.path / "results.json"

    @property
    def report(self) -> Path:
        """The page for a person."""
        return self.path / "report.html"


def open_folder(settings: StudySettings) -> StudyFolder:
    """The study's folder, made on disk, or found again with what an earlier call of the same study left.

    Raises:
        SettingsError: the folder asked for holds something else.
    """
    folder = StudyFolder(_choose_path(settings))
    if folder.config.exists():
        _refuse_other(folder, settings)
    else:
        refuse_used_folder(str(folder.path))
        folder.path.mkdir(parents=True, exist_ok=True)
    write_text(folder.config, OmegaConf.to_yaml(OmegaConf.create(asdict(settings))))
    return folder


def load_study(folder: StudyFolder) -> StudySettings:
    """The settings that a study's folder was made with; keys that are newer than it have their defaults.

    Raises:
        SettingsError: the file cannot be read, or holds keys that this version does not know.
    """
    return read_saved(
        folder.config, lambda saved: _defaults(saved.study.name), told="a study's configuration"
    )


def _choose_path(settings: StudySettings) -> Path:
    """The folder asked for, or one named by what the study changes in the defaults.

    A key with its default has no part in the name: one that a later version adds leaves names as they are.
    """
    if settings.run_dir is not None:
        return Path(settings.run_dir).expanduser()
    given, defaults = (spell_out(one, but=OPEN) for one in (settings, _defaults(settings.study.name)))
    essence = {key: value for key, value in given.items() if value != defaults.get(key)}
    digest = hashlib.sha256(json.dumps(essence, sort_keys=True, default=str).encode()).hexdigest()[:8]
    stem = f"study-{settings.study.name}-{settings.data.task or settings.data.name}-{digest}"
    return Path(settings.runs_folder) / stem


def _defaults(name: str) -> StudySettings:
    return StudySettings(study=STUDIES[name]())


def _refuse_other(folder: StudyFolder, settings: StudySettings) -> None:
    changes = list_changes(load_study(folder), settings, but=OPEN)
    if changes:
        raise SettingsError(
            f"run_dir={folder.path}: holds a study with other settings ({'; '.join(changes)}); "
            "choose another run_dir, or leave it out: a study finds its own folder again."
        )
