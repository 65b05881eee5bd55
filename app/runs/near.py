"""Where runs are near a path that is none: what a message about a wrong path can offer."""

from __future__ import annotations

import difflib
from pathlib import Path

PLACES = {  # of runs below a folder, and what that folder is
    "runs/*": "It is a comparison's folder, which holds the runs",
    "*": "It holds the runs",
    "*/runs/*": "Below it are the runs",
}
SHOWN = 6


def hint_at_runs(path: Path) -> str:
    """The runs below a folder, the name that a mistyped one is near to, or what makes runs.

    Args:
        path: what was taken for a run.
    """
    for place, words in PLACES.items():
        marks = [mark for name in ("config.yaml", "metrics.json") for mark in path.glob(f"{place}/{name}")]
        inside = sorted({str(mark.parent) for mark in marks})
        if inside:
            rest = f" and {len(inside) - SHOWN} more" * (len(inside) > SHOWN)
            return f"{words} {', '.join(inside[:SHOWN])}{rest}: name one of them."
    if not path.exists():
        return _nearest(path) or "voxlift-train makes one and names it in its last line."
    if (path / "config.yaml").exists():
        return f"The training was broken off; to go on: voxlift-train resume={path}"
    return "voxlift-train makes one and names it in its last line."


def hint_at_folder(path: Path) -> str:
    """What a folder holds where a new run was to go, and what can be done instead."""
    if not path.is_dir():
        return "it is a file; choose another run_dir."
    if (path / "metrics.json").exists():
        return "it holds results, those of a finished run; choose another run_dir."
    if (path / "config.yaml").exists():
        return (
            "it holds results, those of a training that was broken off; "
            f"resume={path} goes on with it, or choose another run_dir."
        )
    names = sorted(entry.name for entry in path.iterdir())
    rest = " and more" * (len(names) > 3)
    return f"it holds {', '.join(names[:3])}{rest}; choose another run_dir."


def _nearest(path: Path) -> str:
    """` Did you mean ...?` with the first part that does not exist put right, where one is near."""
    parts = path.parts
    for depth in range(1, len(parts) + 1):
        part, above = Path(*parts[:depth]), Path(*parts[: depth - 1])
        if part.exists():
            continue
        known = [entry.name for entry in above.iterdir()] if above.is_dir() else []
        close = difflib.get_close_matches(part.name, known, n=1, cutoff=0.6)
        mended = above.joinpath(*close, *parts[depth:])
        return f"Did you mean {mended}?" if close and mended.exists() else ""
    return ""
