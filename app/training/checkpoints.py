"""A training in pieces: from where it begins, up to where a frozen body thaws, up to its end."""

from __future__ import annotations

import itertools
import json
import logging
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import SettingsError
from voxlift.app.files import write_beside
from voxlift.app.runs.folder import RunFolder
from voxlift.data_pipelines.atomic import remove_leftovers


@dataclass(frozen=True, order=True)
class Position:
    """How far a training has come: whole epochs, and batches of the epoch that has begun."""

    epoch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Phase:
    """Epochs `first` to `last` (exclusive) in one go, `skip` batches of the first one done already."""

    first: int
    last: int
    skip: int = 0


def plan_phases(start: Position, *, epochs: int, unfreeze: int = 0) -> list[Phase]:
    """What is left to train.

    An epoch that was broken off is a piece of its own, since it is shorter; so are the epochs before the
    unfreeze, since the network is compiled anew after them.

    Args:
        start: where the training goes on.
        epochs: of the whole training.
        unfreeze: the first epoch that trains the whole network.

    >>> plan_phases(Position(1, 5), epochs=8, unfreeze=4)
    [Phase(first=1, last=2, skip=5), Phase(first=2, last=4, skip=0), Phase(first=4, last=8, skip=0)]
    """
    edges = {start.epoch, min(max(unfreeze, start.epoch), epochs), epochs}
    if start.step:
        edges.add(start.epoch + 1)
    cuts = sorted(edge for edge in edges if start.epoch <= edge <= epochs)
    return [
        Phase(first, last, start.step if first == start.epoch else 0)
        for first, last in itertools.pairwise(cuts)
    ]


log = logging.getLogger("voxlift")

KEPT = 2
STATE = "state.json"  # the name, inside a checkpoint, of what is not an array
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Checkpoint:
    """All that a training needs to go on."""

    position: Position
    arrays: Arrays
    state: dict[str, Any]
    best: Arrays = field(default_factory=dict)  # the best epoch's weights; empty before the first epoch's end


class Checkpoints:
    """The checkpoints of one training in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def is_empty(self) -> bool:
        """Whether nothing was saved yet."""
        return not self._all()

    def save(self, checkpoint: Checkpoint, *, best_epoch: int) -> None:
        """Write a checkpoint, and its best weights where they are new; then drop the oldest ones."""
        self.folder.mkdir(exist_ok=True)
        remove_leftovers(self.folder)
        best = self._best(best_epoch)
        if checkpoint.best and not best.exists():
            write_arrays(best, checkpoint.best, {"best_epoch": best_epoch})
        write_arrays(
            self._at(checkpoint.position), checkpoint.arrays, {**checkpoint.state, "best_epoch": best_epoch}
        )
        self._keep(KEPT)

    def load(self) -> Checkpoint | None:
        """The newest whole checkpoint; None where none was written yet.

        Raises:
            SettingsError: there are some, and not one of them can be read.
        """
        problems = []
        for path in reversed(self._all()):
            try:
                found = self._read(path)
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                problems.append(f"{path}: {_first_line(error)}")
                log.info(
                    "Checkpoint %s is damaged (%s): the one before it is taken", path, _first_line(error)
                )
            else:
                self._drop_after(found)
                return found
        if problems:
            raise SettingsError(
                "No checkpoint of this run can be read:\n"
                + "\n".join(problems)
                + f"\nRemove {self.folder} to train it from the beginning with resume=."
            )
        return None

    def files_of(self, checkpoint: Checkpoint) -> list[Path]:
        """Where a saved checkpoint lies, its best weights too."""
        best = [self._best(int(checkpoint.state["best_epoch"]))] if checkpoint.best else []
        return [self._at(checkpoint.position), *best]

    def thin(self) -> None:
        """Keep only the newest, from which more epochs can be trained."""
        if self.folder.is_dir():
            remove_leftovers(self.folder)
            self._keep(1)

    def _drop_after(self, found: Checkpoint) -> None:
        """Remove what a later, damaged checkpoint left: it is going to be trained again."""
        best_epoch = int(found.state["best_epoch"])
        for path in self._all():
            if _position_of(path) > found.position:
                path.unlink()
        for path in self.folder.glob("best-*.npz"):
            if path.name > self._best(best_epoch).name or best_epoch < 0:
                path.unlink()

    def _read(self, path: Path) -> Checkpoint:
        arrays, state = read_arrays(path)
        best_epoch = int(state["best_epoch"])
        best = read_arrays(self._best(best_epoch))[0] if best_epoch >= 0 else {}
        return Checkpoint(_position_of(path), arrays, state, best)

    def _keep(self, count: int) -> None:
        paths = self._all()
        for path in paths[:-count]:
            path.unlink()
        # A damaged one names nothing, and only the newest can be damaged: it was read when it was young.
        named = {self._best(epoch) for epoch in map(_best_epoch_of, paths[-count:]) if epoch is not None}
        if named:
            for path in set(self.folder.glob("best-*.npz")) - named:
                path.unlink()

    def _all(self) -> list[Path]:
        """All checkpoints, oldest first."""
        return sorted(self.folder.glob("at-*.npz"), key=_position_of)

    def _at(self, position: Position) -> Path:
        return self.folder / f"at-{position.epoch:04d}-{position.step:06d}.npz"

    def _best(self, epoch: int) -> Path:
        return self.folder / f"best-{epoch:04d}.npz"


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], state: Mapping[str, Any]) -> None:
    """Write arrays and JSON values into one npz file, whole or not at all.

    Raises:
        OSError: naming the path.
    """
    spoken = np.frombuffer(json.dumps(state).encode(), np.uint8)
    write_beside(path, lambda file: np.savez(file, **{**arrays, STATE: spoken}))  # type: ignore[arg-type]


def read_arrays(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """The inverse of `write_arrays`; every array's checksum is checked.

    Raises:
        OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error: the file is damaged.
    """
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return arrays, json.loads(arrays.pop(STATE).tobytes())


def _position_of(path: Path) -> Position:
    found = re.fullmatch(r"at-(\d+)-(\d+)", path.stem)
    return Position(int(found[1]), int(found[2])) if found else Position(-1)


def _best_epoch_of(path: Path) -> int | None:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return int(json.loads(file[STATE].tobytes())["best_epoch"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", maxsplit=1)[0]


class ReadOnlyCheckpoints(Checkpoints):
    """Checkpoints that another process writes: those that were handed out can be read."""

    def save(self, checkpoint: Checkpoint, *, best_epoch: int) -> None:
        """Nothing: the other process does."""

    def thin(self) -> None:
        """Nothing is here to be dropped."""


def files_to_resume(run: RunFolder) -> list[Path]:
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
