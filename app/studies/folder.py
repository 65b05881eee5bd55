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
from typing import Any

from omegaconf import OmegaConf

from app.files import write_text
from app.runs.opening import refuse_used_folder
from app.settings import SettingsError
from app.settings.studies import StudySettings

INDIFFERENT = ("run_dir", "runs_folder", "debug", "cache", "logger")  # settings that change no result
OPEN = ("budget", "budgets", "trials", "confirm_seeds")  # of a study: filled in by now, or free to be raised


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
    essence = study_essence(settings)
    folder = StudyFolder(_choose_path(settings, essence))
    if folder.config.exists():
        _refuse_other(folder, essence)
    else:
        refuse_used_folder(str(folder.path))
        folder.path.mkdir(parents=True, exist_ok=True)
    write_text(folder.config, OmegaConf.to_yaml(OmegaConf.create(asdict(settings))))
    return folder


def study_essence(settings: StudySettings) -> dict[str, Any]:
    """The settings that decide what a study finds."""
    values = {key: value for key, value in asdict(settings).items() if key not in INDIFFERENT}
    return values | {"study": {key: value for key, value in values["study"].items() if key not in OPEN}}


def _choose_path(settings: StudySettings, essence: dict[str, Any]) -> Path:
    if settings.run_dir is not None:
        return Path(settings.run_dir).expanduser()
    digest = hashlib.sha256(json.dumps(essence, sort_keys=True, default=str).encode()).hexdigest()[:8]
    stem = f"study-{settings.study.name}-{settings.data.task or settings.data.name}-{digest}"
    return Path(settings.runs_folder) / stem


def _refuse_other(folder: StudyFolder, essence: dict[str, Any]) -> None:
    saved = OmegaConf.to_container(OmegaConf.load(folder.config))
    if not isinstance(saved, dict):
        raise SettingsError(f"{folder.config}: expected a study's configuration; choose another run_dir.")
    saved["study"] = {key: value for key, value in saved.get("study", {}).items() if key not in OPEN}
    changed = sorted(key for key, value in essence.items() if saved.get(key) != value)
    if changed:
        raise SettingsError(
            f"run_dir={folder.path}: holds a study with other settings ({', '.join(changed)}); "
            "choose another run_dir, or leave it out: a study finds its own folder again."
        )
