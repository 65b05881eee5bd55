"""Which runs give what a training would give: in a folder of its own, and elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from voxlift import __version__
from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.config.overrides import list_changes
from voxlift.app.files import read_json, read_rows
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder

TRIALS = "trials.csv"  # a comparison's table of its trainings, up to date after each


PLACES = ("*", "*/runs/*")  # of run folders in the folder of all runs: single runs, and those of comparisons


def refuse_other_run(run: RunFolder, wanted: TrainSettings) -> None:
    """Pass when a folder holds no finished run of other settings.

    Raises:
        SettingsError: with the settings that differ; finished work is never overwritten.
    """
    if not run.is_finished:
        return
    changes = list_changes(load_settings(run), wanted)
    if changes:
        raise SettingsError(
            f"{run.path}: expected a run with this comparison's settings, but it was trained "
            f"with others ({'; '.join(changes)}). Choose another run_dir, or remove that folder yourself."
        )


def find_finished(wanted: TrainSettings, runs_folder: Path) -> RunFolder | None:
    """A finished run with the same settings among all runs, None where there is none.

    Only runs of this version of Voxlift count, and only those begun after the table of labels was last
    changed; that the images themselves are unchanged is taken for granted.
    """
    for run in _finished_runs(runs_folder):
        try:
            settings = load_settings(run)
            is_own_version = read_json(run.environment).get("voxlift") == __version__
        except SettingsError:
            continue  # a folder of something else, or of a version with other keys
        if is_own_version and not list_changes(settings, wanted) and _is_newer_than_table(run, wanted):
            return run
    return None


def find_beside(folder: Path, wanted: TrainSettings) -> RunFolder | None:
    """A finished run with the same settings in the comparison that a run's folder belongs to, if in one."""
    table = folder.parent.parent / TRIALS
    for row in read_rows(table) if table.is_file() else []:
        run = RunFolder(Path(row["run"]))
        if run.is_finished and has_begun(run, wanted):
            return run
    return None


def has_begun(run: RunFolder, wanted: TrainSettings) -> bool:
    """Whether a training with the same settings was broken off there, and can go on."""
    try:
        return not list_changes(load_settings(run), wanted)
    except (SettingsError, OSError):
        return False  # killed before it wrote its settings, or of a version with other keys


def _finished_runs(runs_folder: Path) -> Iterator[RunFolder]:
    for place in PLACES:
        for metrics in sorted(runs_folder.glob(f"{place}/metrics.json")):
            yield RunFolder(metrics.parent)


def _is_newer_than_table(run: RunFolder, wanted: TrainSettings) -> bool:
    table = Path(str(wanted.data.table)).expanduser()
    return not table.is_file() or table.stat().st_mtime <= run.config.stat().st_mtime
