"""What the processes of several hosts exchange besides gradients: settings, agreement, failures, files.

All of it is done by the collective operations of `jax.experimental.multihost_utils`, in which every process
takes part at the same point of the program, and waits as long as another one works.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from omegaconf import OmegaConf

from voxlift.app.config import HostsSettings, SettingsError, TrainSettings
from voxlift.app.config.messages import describe_error, is_user_error
from voxlift.app.config.overrides import flatten
from voxlift.app.config.texts import restore_settings
from voxlift.app.errors import UserError
from voxlift.app.training.strategy.hosts.connect import is_leader

if TYPE_CHECKING:
    from voxlift.app.data.cohort import Cohort

PIECE = 2**24  # bytes of a file that are sent at once
# What hosts may have of their own: places on their disks, and what only host 0 writes.
OWN_KEYS = ("hosts", "run_dir", "runs_folder", "cache", "logger", "debug")
OWN_DATA = ("folder", "root", "table", "npz")


def is_follower(settings: TrainSettings) -> bool:
    """Return whether another process writes the run folder."""
    return settings.strategy == "hosts" and not is_leader()


def gather_texts(text: str) -> list[str]:
    """Return the texts of all processes, in their order."""
    from jax.experimental.multihost_utils import process_allgather

    own = np.frombuffer(text.encode(), np.uint8)
    sizes = np.asarray(process_allgather(np.array([own.size], np.int32))).ravel()
    padded = np.zeros(int(sizes.max()) + 1, np.uint8)  # JAX sends no empty array
    padded[: own.size] = own
    rows = np.asarray(process_allgather(padded)).astype(np.uint8)
    return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]


def barrier(name: str) -> None:
    """Wait until every process has reached this barrier."""
    from jax.experimental.multihost_utils import sync_global_devices

    sync_global_devices(name)


def share_run_path(settings: TrainSettings, path: Path) -> Path:
    """Return the path of the run folder on host 0, so that every host can report how to resume."""
    return Path(gather_texts(str(path.absolute()))[0]) if settings.strategy == "hosts" else path


@contextmanager
def process_zero_first(settings: TrainSettings) -> Iterator[None]:
    """Let host 0 run the block first, and the others when it has finished; a failure of one ends all.

    On a shared file system the others find the work done; otherwise each host does it.

    Raises:
        UserError: Another host has failed in the block.
    """
    if settings.strategy != "hosts":
        yield
        return
    if not is_leader():
        _share_failure(None)
    try:
        yield
    except Exception as error:
        _share_failure(error)
        raise
    _share_failure(None)
    if is_leader():
        _share_failure(None)


def _share_failure(error: Exception | None) -> None:
    """Exchange why each process has failed, if it has; raise for the first other one."""
    own = "" if error is None else _describe(error)
    failures = [(index, text) for index, text in enumerate(gather_texts(own)) if text]
    if failures and error is None:
        index, text = failures[0]
        raise UserError(f"Host {index} stopped: {text}")


def _describe(error: Exception) -> str:
    if is_user_error(error):
        return describe_error(error, command="train")
    return f"{type(error).__name__}: {error}"


def agree_on_settings(given: str | None) -> TrainSettings:
    """Return the settings of this process, after checking that all processes have those of host 0.

    Args:
        given: As YAML; None takes those of host 0.

    Raises:
        SettingsError: Naming the keys that differ, on all hosts.
    """
    texts = gather_texts(given or "")
    first, *others = [_read(text or texts[0]) for text in texts]
    for index, settings in enumerate(others, start=1):
        differing = differing_keys(settings, first)
        if differing:
            raise SettingsError(
                f"Expected the same settings on all hosts. On host {index}, {', '.join(differing)}."
            )
    own = _read(given or texts[0])
    return replace(own, hosts=HostsSettings())  # which host this is has no place in a run's configuration


def differing_keys(settings: TrainSettings, first: TrainSettings) -> list[str]:
    """Return the keys that differ from those of host 0 and must not, with both values."""
    theirs, expected = (flatten(asdict(one)) for one in (settings, first))
    names = [*theirs, *(key for key in expected if key not in theirs)]
    return [
        f"{key} is {theirs.get(key)} instead of {expected.get(key)}"
        for key in names
        if theirs.get(key) != expected.get(key) and not _may_differ(key)
    ]


def agree_on_subjects(settings: TrainSettings, cohort: Cohort) -> None:
    """Pass when all hosts have the subjects, labels, splits and shape of host 0.

    Raises:
        SettingsError: They differ.
    """
    rows = [
        [record.subject, cohort.task.label_cells(record.label, record.targets, cohort.classes), split]
        for record, split in zip(cohort.records, cohort.splits, strict=True)
    ]
    facts = [rows, cohort.shape, cohort.dtype, cohort.classes]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    found = f"{len(rows)} volumes of shape {'x'.join(map(str, cohort.shape))} ({digest})"
    _agree(found, settings, expected="Expected the same subjects, labels and files on all hosts")


def agree_on_precision(settings: TrainSettings, policy: str) -> None:
    """Pass when all hosts compute in the precision of host 0.

    Raises:
        SettingsError: `precision=auto` chose another one for the device of a host.
    """
    _agree(policy, settings, expected="Expected one precision on all hosts: set precision=float32")


def _agree(value: str, settings: TrainSettings, *, expected: str) -> None:
    if settings.strategy != "hosts":
        return
    first, *others = gather_texts(value)
    for index, other in enumerate(others, start=1):
        if other != first:
            raise SettingsError(f"{expected}; host 0 has {first}, host {index} has {other}.")


def send_files(paths: Sequence[Path], root: Path) -> None:
    """Send files of host 0 to the others, under the same names below their own `root`."""
    names = [[str(path.relative_to(root)), path.stat().st_size] for path in paths]
    for name, size in json.loads(gather_texts(json.dumps(names))[0]):
        file = root / name
        content = file.read_bytes() if is_leader() else bytes(size)
        pieces = [_broadcast(content[at : at + PIECE]) for at in range(0, size, PIECE)]
        if not is_leader():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"".join(pieces))


def _broadcast(piece: bytes) -> bytes:
    """Return the bytes of process 0; those of the others have the same size."""
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return bytes(np.asarray(broadcast_one_to_all(np.frombuffer(piece, np.uint8))).astype(np.uint8).tobytes())


def _read(text: str) -> TrainSettings:
    schema = OmegaConf.structured(TrainSettings)
    settings: TrainSettings = OmegaConf.to_object(OmegaConf.merge(schema, OmegaConf.create(text)))  # type: ignore[assignment]
    return restore_settings(settings)


def _may_differ(key: str) -> bool:
    group, _, rest = key.partition(".")
    return group in OWN_KEYS or (group == "data" and rest in OWN_DATA)
