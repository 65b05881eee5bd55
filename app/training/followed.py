"""The run folder as the processes see it that do not write it: a copy of what they need, and nothing kept."""

from __future__ import annotations

from pathlib import Path

from voxlift.app.runs.folder import RunFolder
from voxlift.app.training.checkpoints import Checkpoint, Checkpoints


class FollowedCheckpoints(Checkpoints):
    """Checkpoints that another process writes: those that were handed out can be read."""

    def save(self, checkpoint: Checkpoint, *, best_epoch: int) -> None:
        """Nothing: the other process does."""

    def thin(self) -> None:
        """Nothing is here to be dropped."""


def needed_to_resume(run: RunFolder) -> list[Path]:
    """The files that every process must have to go on with a run, those of a first training on slices too.

    Raises:
        SettingsError: it has checkpoints, and not one of them can be read.
    """
    first = RunFolder(run.path / "slice2d")
    return [*_needed(run), *(_needed(first) if first.path.is_dir() else []), *_results(first)]


def _needed(run: RunFolder) -> list[Path]:
    checkpoints = Checkpoints(run.checkpoints)
    found = checkpoints.load()
    described = [run.config, run.environment, run.left_out, run.metrics, run.splits]
    return [
        *(path for path in described if path.exists()),
        *(checkpoints.files_of(found) if found else []),
    ]


def _results(run: RunFolder) -> list[Path]:
    return [run.model] if run.is_finished else []
