"""A run's folder: made for a new run, or found with a finished one in it."""

from __future__ import annotations

import time
from pathlib import Path

from voxlift.app.places import refuse_unwritable
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.near import hint_at_folder, hint_at_runs
from voxlift.app.settings import SettingsError


def refuse_used_folder(run_dir: str | None) -> None:
    """Pass when `run_dir` may receive a run: it is None, new, or an empty folder.

    Raises:
        SettingsError: it holds another run's files or anything else, or cannot be made.
    """
    if run_dir is None:
        return
    path = Path(run_dir).expanduser()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise SettingsError(f"run_dir={run_dir}: expected a new or empty folder, but {hint_at_folder(path)}")
    refuse_unwritable(path / "config.yaml", asked=f"run_dir={run_dir}")


def create_run(run_dir: str | None, *, runs_folder: str, name: str) -> RunFolder:
    """A new run folder, made on disk.

    Args:
        run_dir: the folder that the user asks for; None makes `<runs_folder>/<time>-<name>`.
        runs_folder: where unnamed runs go.
        name: what the run is, for an unnamed folder.

    Raises:
        SettingsError: the folder holds another run's files, or anything else.
    """
    if run_dir is None:
        return _create_unnamed(Path(runs_folder), f"{time.strftime('%Y%m%d-%H%M%S')}-{name}")
    refuse_used_folder(run_dir)
    folder = RunFolder(Path(run_dir).expanduser())
    folder.path.mkdir(parents=True, exist_ok=True)
    return folder


def _create_unnamed(parent: Path, stem: str) -> RunFolder:
    parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1000):  # two runs may start within one second
        path = parent / (stem if attempt == 0 else f"{stem}-{attempt + 1}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return RunFolder(path)
    raise SettingsError(f"{parent}: a thousand runs of this second exist; choose a run_dir.")


def open_run(run: str) -> RunFolder:
    """A finished run's folder.

    Raises:
        SettingsError: it is not a folder, not a run, or not finished.
    """
    folder = RunFolder(Path(run).expanduser())
    if not folder.path.is_dir():
        is_file = " it is a file." if folder.path.exists() else " there is no such folder."
        raise SettingsError(f"run={run}: expected a run folder;{is_file} {hint_at_runs(folder.path)}")
    missing = [path.name for path in (folder.config, folder.splits, folder.model) if not path.exists()]
    if missing and (folder.path / "coefficients.csv").exists():
        raise SettingsError(
            f"run={run}: expected the run of a network; this one is a regression on columns of the table, "
            "whose results stand in metrics.json, predictions.csv and coefficients.csv."
        )
    if missing:
        raise SettingsError(
            f"run={run}: expected a finished run's folder; {', '.join(missing)} is not in it. "
            f"{hint_at_runs(folder.path)}"
        )
    return folder
