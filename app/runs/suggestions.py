"""Suggestions for a wrong path of a run: the runs nearby, the closest name, or the command to use."""

from __future__ import annotations

from pathlib import Path

import yaml

from voxlift.app.runtime.failures import format_resume
from voxlift.data_pipelines.errors import closest_name

MAX_SUGGESTIONS = 6
LOCATIONS = {  # of run folders below a folder, and a sentence about that folder
    "runs/*": "It is the folder of a comparison, with the runs",
    "*": "It contains the runs",
    "*/runs/*": "Its subfolders contain the runs",
}


def suggest_runs(path: Path) -> str:
    """Return a sentence with the runs below a folder, the closest path, or the command that makes runs.

    Args:
        path: The path that was given as a run.
    """
    for location, sentence in LOCATIONS.items():
        files = [file for name in ("config.yaml", "metrics.json") for file in path.glob(f"{location}/{name}")]
        runs = sorted({str(file.parent) for file in files})
        if runs:
            more = f" and {len(runs) - MAX_SUGGESTIONS} more" if len(runs) > MAX_SUGGESTIONS else ""
            return f"{sentence} {', '.join(runs[:MAX_SUGGESTIONS])}{more}: give one of these."
    if not path.exists():
        close = _closest_path(path)
        if close is not None:
            return f"Did you mean {close}?"
    elif (path / "config.yaml").exists():
        return f"Its training was interrupted; to resume it: voxlift-train {_resume_keys(path)}"
    return "voxlift-train creates a run and prints its folder in the last line."


def describe_used_folder(path: Path) -> str:
    """Return what an existing path contains where a new run was to be created, and what to do instead."""
    if not path.is_dir():
        return "it is a file; choose another run_dir."
    if (path / "metrics.json").exists():
        return "it holds the results of a finished run; choose another run_dir."
    if (path / "config.yaml").exists():
        keys = _resume_keys(path)
        return f"it holds an interrupted training; resume it with {keys}, or choose another run_dir."
    names = sorted(entry.name for entry in path.iterdir())
    more = " and more" if len(names) > 3 else ""
    return f"it holds {', '.join(names[:3])}{more}; choose another run_dir."


def _resume_keys(path: Path) -> str:
    """Return the keys that resume a run, with the user's own modules if its configuration can be read."""
    try:
        custom = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))["custom"] or ()
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        custom = ()
    return format_resume(path, custom)


def _closest_path(path: Path) -> Path | None:
    """Return the path with its first missing part replaced by the closest existing name; None without one."""
    missing = next(part for part in (*reversed(path.parents), path) if not part.exists())
    siblings = [entry.name for entry in missing.parent.iterdir()] if missing.parent.is_dir() else []
    close = closest_name(missing.name, siblings)
    if close is None:
        return None
    corrected = missing.parent / close / path.relative_to(missing)
    return corrected if corrected.exists() else None
