"""Checkpoints on disk: arrays in npz files, with the rest as JSON inside them; each is written atomically.

    checkpoints/
      at-0003-000000.npz   after 3 whole epochs and no batch: the newest two are kept
      best-0002.npz        the weights of the best epoch, kept as long as one of those names them

An npz file has a checksum for each array, so that reading it shows whether it is damaged.
"""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import SettingsError
from voxlift.app.files import write_beside
from voxlift.app.runs.folder import RunFolder
from voxlift.data_pipelines.files import remove_leftovers
from voxlift.data_pipelines.npz import read_npz


@dataclass(frozen=True, order=True)
class Position:
    """How far a training has come: finished epochs, and batches of the current epoch."""

    epoch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Phase:
    """Epochs `first` to `last` (exclusive) of one fit; `skip` batches of the first one are done already."""

    first: int
    last: int
    skip: int = 0


def plan_phases(start: Position, *, epochs: int, unfreeze: int = 0) -> list[Phase]:
    """Return the phases that are left to train.

    An interrupted epoch is a phase of its own, since it is shorter; so are the epochs before the unfreezing,
    since the network is compiled anew after them.

    Args:
        start: Where the training resumes.
        epochs: Of the whole training.
        unfreeze: The first epoch that trains the whole network.

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
    """All that a training needs to resume."""

    position: Position
    arrays: Arrays
    state: dict[str, Any]
    best: Arrays = field(default_factory=dict)  # weights of the best epoch; empty before the end of the first


class Checkpoints:
    """The checkpoints of one training, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def is_empty(self) -> bool:
        """Whether there is no checkpoint yet."""
        return not self._all()

    def save(self, checkpoint: Checkpoint, *, best_epoch: int) -> None:
        """Write a checkpoint, and the best weights where they are new; then delete the oldest."""
        self.folder.mkdir(exist_ok=True)
        remove_leftovers(self.folder, min_age_s=0)
        best = self._best(best_epoch)
        if checkpoint.best and not best.exists():
            write_arrays(best, checkpoint.best, {"best_epoch": best_epoch})
        write_arrays(
            self._at(checkpoint.position), checkpoint.arrays, {**checkpoint.state, "best_epoch": best_epoch}
        )
        self._keep(KEPT)

    def load(self) -> Checkpoint | None:
        """Return the newest undamaged checkpoint; None where there is none yet.

        Raises:
            SettingsError: There are checkpoints, and none can be read.
        """
        problems = []
        for path in reversed(self._all()):
            try:
                found = self._read(path)
            except (OSError, ValueError) as error:
                problems.append(f"{path}: {_first_line(error)}")
                log.info("Checkpoint %s is damaged (%s): the one before is used", path, _first_line(error))
            else:
                self._drop_after(found)
                return found
        if problems:
            raise SettingsError(
                "No checkpoint of this run can be read:\n"
                + "\n".join(problems)
                + f"\nRemove {self.folder} to train from the beginning with resume=."
            )
        return None

    def files_of(self, checkpoint: Checkpoint) -> list[Path]:
        """Return the files of a saved checkpoint, with those of its best weights."""
        best = [self._best(int(checkpoint.state["best_epoch"]))] if checkpoint.best else []
        return [self._at(checkpoint.position), *best]

    def thin(self) -> None:
        """Delete all but the newest, from which more epochs can be trained."""
        if self.folder.is_dir():
            remove_leftovers(self.folder, min_age_s=0)
            self._keep(1)

    def _drop_after(self, found: Checkpoint) -> None:
        """Delete the files of later, damaged checkpoints, whose steps are trained again."""
        best_epoch = int(found.state["best_epoch"])
        for path in self._all():
            if _position_of(path) > found.position:
                path.unlink()
        for path in self.folder.glob("best-*.npz"):
            if path.name > self._best(best_epoch).name or best_epoch < 0:
                path.unlink()

    def _read(self, path: Path) -> Checkpoint:
        arrays, state = read_arrays(path)
        best_epoch = _best_epoch(state)
        best = read_arrays(self._best(best_epoch))[0] if best_epoch >= 0 else {}
        return Checkpoint(_position_of(path), arrays, state, best)

    def _keep(self, count: int) -> None:
        paths = self._all()
        for path in paths[:-count]:
            path.unlink()
        # A damaged checkpoint names no best weights. Only the newest can be damaged.
        named = {self._best(epoch) for epoch in map(_best_epoch_of, paths[-count:]) if epoch is not None}
        if named:
            for path in set(self.folder.glob("best-*.npz")) - named:
                path.unlink()

    def _all(self) -> list[Path]:
        """Return all checkpoints, oldest first."""
        return sorted(self.folder.glob("at-*.npz"), key=_position_of)

    def _at(self, position: Position) -> Path:
        return self.folder / f"at-{position.epoch:04d}-{position.step:06d}.npz"

    def _best(self, epoch: int) -> Path:
        return self.folder / f"best-{epoch:04d}.npz"


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], state: Mapping[str, Any]) -> None:
    """Write arrays and JSON values into one npz file, atomically.

    Raises:
        OSError: Naming the path.
    """
    encoded = np.frombuffer(json.dumps(state).encode(), np.uint8)
    write_beside(path, lambda file: np.savez(file, **{**arrays, STATE: encoded}))  # type: ignore[arg-type]


def read_arrays(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Read what `write_arrays` wrote; the checksum of every array is checked.

    Raises:
        OSError, ValueError: The file is damaged.
    """
    arrays = read_npz(path)
    return arrays, _decode_state(arrays.pop(STATE, None))


def _decode_state(encoded: NDArray[Any] | None) -> dict[str, Any]:
    try:
        state = {} if encoded is None else json.loads(encoded.tobytes())
    except RecursionError as error:
        raise ValueError(f"{STATE} has too many levels") from error
    if encoded is None or not isinstance(state, dict):
        raise ValueError(f"it has no {STATE} as Voxlift writes it")
    return state


def _best_epoch(state: Mapping[str, Any]) -> int:
    found = state.get("best_epoch")
    if not isinstance(found, int):
        raise ValueError(f"{STATE} has no best epoch")  # noqa: TRY004 - the content is wrong, not a call
    return found


def _position_of(path: Path) -> Position:
    found = re.fullmatch(r"at-(\d+)-(\d+)", path.stem)
    return Position(int(found[1]), int(found[2])) if found else Position(-1)


def _best_epoch_of(path: Path) -> int | None:
    try:
        return _best_epoch(_decode_state(read_npz(path, (STATE,))[STATE]))
    except (OSError, ValueError):
        return None


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", maxsplit=1)[0]


class ReadOnlyCheckpoints(Checkpoints):
    """Checkpoints that another process writes and has sent to this one."""

    def save(self, checkpoint: Checkpoint, *, best_epoch: int) -> None:
        """Do nothing: the other process saves."""

    def thin(self) -> None:
        """Do nothing: the other process deletes."""


def files_to_resume(run: RunFolder) -> list[Path]:
    """Return the files that every process needs to resume a run, with those of its slice stage.

    Raises:
        SettingsError: It has checkpoints, and not one of them can be read.
    """
    first = run.slice_model
    return [*_needed(run), *(_needed(first) if first.path.is_dir() else []), *_results(first)]


def _needed(run: RunFolder) -> list[Path]:
    checkpoints = Checkpoints(run.checkpoints)
    found = checkpoints.load()
    described = [
        run.config,
        run.environment,
        run.images,
        run.untrained,
        run.left_out,
        run.metrics,
        run.splits,
    ]
    return [
        *(path for path in described if path.exists()),
        *(checkpoints.files_of(found) if found else []),
    ]


def _results(run: RunFolder) -> list[Path]:
    return [run.model] if run.is_finished else []


def gather_arrays(network: Any) -> Arrays:  # noqa: ANN401 - untyped Keras
    """Return all arrays that the next step depends on, from weights and seeds to slots and averages."""
    from keras import ops  # late: processes that only read checkpoints need no Keras

    return {
        f"{part}/{number:05d}": ops.convert_to_numpy(variable)
        for part, variables in _variables_by_part(network).items()
        for number, variable in enumerate(variables)
    }


def restore_arrays(network: Any, arrays: Arrays, *, parts: tuple[str, ...]) -> None:  # noqa: ANN401 - untyped Keras
    """Put the arrays of `gather_arrays` back into a network that was compiled in the same way.

    Raises:
        SettingsError: The network has other variables than the one that was saved.
    """
    for part in parts:
        variables, values = _variables_by_part(network)[part], select_arrays(arrays, part)
        ours, theirs = [tuple(v.shape) for v in variables], [value.shape for value in values]
        if ours != theirs:
            raise SettingsError(
                f"The checkpoint's {part} has {len(theirs)} arrays that do not fit the {len(ours)} that "
                "were built: the settings or Voxlift have changed. Start a new training in another run_dir."
            )
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def select_arrays(arrays: Arrays, part: str) -> list[Any]:
    """Return the arrays of one part, in order."""
    return [arrays[name] for name in sorted(arrays) if name.startswith(f"{part}/")]


def _variables_by_part(network: Any) -> dict[str, list[Any]]:  # noqa: ANN401 - untyped Keras
    return {
        "network": list(network.variables),  # with the seeds of dropout
        "optimizer": list(network.optimizer.variables),
        "means": list(network.metrics_variables),
    }
