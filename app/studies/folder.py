"""Create a study's folder, or open it again for the same study.

config.yaml       the composed configuration, by which the study is recognised
runs/             a run folder per training
measurements/     a folder per measurement in a child process
logs/             the output of each training
figures/          PNG and SVG
table.csv, results.json, report.html
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from voxlift.app.config import SettingsError
from voxlift.app.config.commands import StudySettings
from voxlift.app.config.overrides import dump_settings, list_changes, list_result_settings
from voxlift.app.config.studies import STUDIES
from voxlift.app.files import write_text
from voxlift.app.runs.configuration import read_config
from voxlift.app.runs.folder import refuse_used_folder
from voxlift.data_pipelines.files import remove_leftovers

# Keys that do not identify a study: filled in from the budget, or free to be raised.
IGNORED_KEYS = ("study.budget", "study.budgets", "study.trials", "study.confirm_seeds")


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
        """The output of each training (text)."""
        return self.path / "logs"

    @property
    def figures(self) -> Path:
        """Figures as PNG and SVG files."""
        return self.path / "figures"

    @property
    def table(self) -> Path:
        """One row per point (CSV)."""
        return self.path / "table.csv"

    @property
    def results(self) -> Path:
        """Recommendation, varied and fixed settings, and the numbers of all figures (JSON)."""
        return self.path / "results.json"

    @property
    def report(self) -> Path:
        """The page (HTML)."""
        return self.path / "report.html"


def open_study_folder(settings: StudySettings) -> StudyFolder:
    """Create the study's folder, or open it again with the results of an earlier call of the same study.

    Raises:
        SettingsError: The folder asked for holds something else.
    """
    folder = StudyFolder(_choose_path(settings))
    if not folder.config.exists():
        refuse_used_folder(str(folder.path))
        folder.path.mkdir(parents=True, exist_ok=True)
    elif changes := list_changes(load_study(folder), settings, but=IGNORED_KEYS):
        raise SettingsError(
            f"run_dir={folder.path}: expected a study with the same settings, but it holds one with others "
            f"({'; '.join(changes)}). Choose another run_dir, or leave it out: the name of a study's folder "
            "follows from its settings."
        )
    remove_leftovers(folder.path)
    write_text(folder.config, dump_settings(asdict(settings)))
    return folder


def load_study(folder: StudyFolder) -> StudySettings:
    """Return the settings that a study's folder was created with; keys that are newer get their defaults.

    Raises:
        SettingsError: The file cannot be read, or has keys that this version does not know.
    """
    return read_config(
        folder.config,
        lambda saved: _default_settings(saved.study.name),
        expected="a configuration of a study",
    )


def _choose_path(settings: StudySettings) -> Path:
    """Return the folder asked for, or one named by a digest of the settings that differ from the defaults.

    A key with its default value does not enter the digest, so that a key of a later version changes no name.
    """
    if settings.run_dir is not None:
        return Path(settings.run_dir).expanduser()
    default = _default_settings(settings.study.name)
    given, defaults = (list_result_settings(one, but=IGNORED_KEYS) for one in (settings, default))
    changed = {key: value for key, value in given.items() if value != defaults.get(key)}
    digest = hashlib.sha256(json.dumps(changed, sort_keys=True, default=str).encode()).hexdigest()[:8]
    data = Path(settings.run).name if settings.run else settings.data.task or settings.data.name
    stem = f"study-{settings.study.name}-{data}-{digest}"
    return Path(settings.runs_folder) / stem


def _default_settings(name: str) -> StudySettings:
    return StudySettings(study=STUDIES[name]())
