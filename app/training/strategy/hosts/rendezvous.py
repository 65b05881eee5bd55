"""Communication of the training processes outside of the steps: short messages, barriers, and files.

It uses the key-value store that JAX starts on host 0. The store needs no device, so it works before the first
one is initialised, and a wait may be as long as the work of another process.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from voxlift.app.config import HostsSettings, SettingsError, TrainSettings
from voxlift.app.config.overrides import flatten
from voxlift.app.config.texts import restore_settings

if TYPE_CHECKING:
    from voxlift.app.data.cohort import Cohort


REQUEST_MS = 1000  # timeout of one request, which is repeated until it is answered
PIECE = 2**20  # bytes of a file in one message


def initialize(coordinator: str, *, count: int, index: int, wait_seconds: int) -> None:
    """Connect to the other processes; return when all are there. JAX aborts the process when they are not.

    Args:
        coordinator: HOST:PORT of process 0.
        count: Of processes.
        index: Of this one.
        wait_seconds: How long to wait for the others.
    """
    import jax

    # Without it the engine cannot add up what lies on the CPUs of several processes.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        coordinator,
        num_processes=count,
        process_id=index,
        initialization_timeout=wait_seconds,
        cluster_detection_method="deactivate",  # all is known, and each process uses all GPUs that it sees
    )


def disconnect() -> None:
    """Disconnect from the others, as all of them do; what follows is computed by this process alone."""
    import jax

    jax.distributed.shutdown()


def is_follower(settings: TrainSettings) -> bool:
    """Return whether another process writes the run folder."""
    return settings.strategy == "hosts" and own_index() > 0


def publish_run(settings: TrainSettings, path: Path) -> None:
    """Publish the run folder, so that every host can report how to resume."""
    if settings.strategy == "hosts" and not own_index():
        publish("run", str(path.absolute()))


def own_index() -> int:
    """Return the index of this process; 0 on a single host."""
    return int(_state().process_id or 0)


def process_count() -> int:
    """Return the number of processes; 1 on a single host."""
    return int(_state().num_processes or 1)


def is_connected() -> bool:
    """Return whether this process is connected to others."""
    return _state().client is not None


def publish(name: str, value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Publish a value under a new name."""
    _state().client.key_value_set(_key(name), json.dumps(value))


def wait_for(name: str) -> Any:  # noqa: ANN401 - as above
    """Wait for a value to be published under a name, and return it."""
    return json.loads(_ask(lambda client: client.blocking_key_value_get(_key(name), REQUEST_MS)))


def read_published(folder: str) -> dict[str, Any]:
    """Return what was published so far under names that begin with `folder/`, by the rest of the name."""
    found = _state().client.key_value_dir_get(_key(folder))
    return {key.rpartition("/")[2]: json.loads(value) for key, value in found}


def barrier(name: str) -> None:
    """Wait until every process has reached this barrier."""
    if own_index():
        publish(f"{name}/came/{own_index()}", value=True)
        wait_for(f"{name}/all")
        return
    for index in range(1, process_count()):
        wait_for(f"{name}/came/{index}")
    publish(f"{name}/all", value=True)


@contextmanager
def process_zero_first(settings: TrainSettings, *, name: str) -> Iterator[None]:
    """Let host 0 run the block first, and the others when it has finished.

    On a shared file system the others find the work done; otherwise each host does it.
    """
    if is_follower(settings):
        wait_for(f"{name}/done")
    yield
    if settings.strategy == "hosts":
        if not own_index():
            publish(f"{name}/done", value=True)
        barrier(f"{name}/together")


def send_files(paths: Sequence[Path], root: Path) -> None:
    """Send files of host 0 to the others, under the same names below their own `root`."""
    if own_index() == 0:
        publish("files", [[str(path.relative_to(root)), path.stat().st_size] for path in paths])
        for number, path in enumerate(paths):
            _send_file(path, number)
    else:
        for number, (name, size) in enumerate(wait_for("files")):
            _receive_file(root / name, size, number)
    barrier("handed out")


def _send_file(path: Path, number: int) -> None:
    with path.open("rb") as file:
        for piece, content in enumerate(iter(lambda: file.read(PIECE), b"")):
            _state().client.key_value_set_bytes(_key(f"file/{number}/{piece}"), content)


def _receive_file(path: Path, size: int, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for piece in range(-(-size // PIECE)):
            key = _key(f"file/{number}/{piece}")
            file.write(_ask(lambda client, key=key: client.blocking_key_value_get_bytes(key, REQUEST_MS)))


def _ask(question: Any) -> Any:  # noqa: ANN401 - a function of the engine's client, which has no types
    """Repeat a request until it is answered."""
    while True:
        try:
            return question(_state().client)
        except Exception as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
            time.sleep(0.01)


def _key(name: str) -> str:
    return f"voxlift/{name}"


def _state() -> Any:  # noqa: ANN401 - untyped JAX
    from jax._src import distributed  # JAX has no public way to exchange values without a device

    return distributed.global_state


# What hosts may have of their own: places on their disks, and what only host 0 writes.
OWN_KEYS = ("hosts", "run_dir", "runs_folder", "cache", "logger", "debug")
OWN_DATA = ("folder", "root", "table", "npz")


def agree_on_settings(given: str | None) -> TrainSettings:
    """Return the settings of this process, after checking that they equal those of host 0.

    Args:
        given: As YAML; None takes those of host 0.

    Raises:
        SettingsError: Naming the keys that differ.
    """
    if own_index() == 0:
        publish("settings", given)
    first = _read(str(wait_for("settings")))
    own = first if given is None else _read(given)
    differing = differing_keys(own, first)
    if differing:
        raise SettingsError(f"Expected the same settings on all hosts, but {', '.join(differing)}.")
    return replace(own, hosts=HostsSettings())  # which host this is has no place in a run's configuration


def differing_keys(own: TrainSettings, first: TrainSettings) -> list[str]:
    """Return the keys that differ between this host and host 0 and must not, with both values."""
    ours, theirs = (flatten(asdict(settings)) for settings in (own, first))
    names = [*ours, *(key for key in theirs if key not in ours)]
    return [
        f"{key} is {ours.get(key)} here and {theirs.get(key)} on host 0"
        for key in names
        if ours.get(key) != theirs.get(key) and not _may_differ(key)
    ]


def agree_on_subjects(settings: TrainSettings, cohort: Cohort) -> None:
    """Pass when this host has the subjects, labels, splits and shape of host 0.

    Raises:
        SettingsError: They differ.
    """
    rows = [
        [record.subject, cohort.classes[record.label], split]
        for record, split in zip(cohort.records, cohort.splits, strict=True)
    ]
    facts = [rows, cohort.shape, cohort.dtype, cohort.classes]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    found = f"{len(rows)} volumes of shape {'x'.join(map(str, cohort.shape))} ({digest})"
    _agree("subjects", found, settings, expected="Expected the same subjects, labels and files on all hosts")


def agree_on_precision(settings: TrainSettings, policy: str) -> None:
    """Pass when this host computes in the precision of host 0.

    Raises:
        SettingsError: `precision=auto` chose another one for the device of this host.
    """
    _agree(
        "precision", policy, settings, expected="Expected one precision on all hosts: set precision=float32"
    )


def _agree(name: str, value: str, settings: TrainSettings, *, expected: str) -> None:
    if settings.strategy != "hosts":
        return
    if own_index() == 0:
        publish(name, value)
    first = wait_for(name)
    if first != value:
        raise SettingsError(f"{expected}; host 0 has {first}, host {own_index()} has {value}.")


def _read(text: str) -> TrainSettings:
    schema = OmegaConf.structured(TrainSettings)
    settings: TrainSettings = OmegaConf.to_object(OmegaConf.merge(schema, OmegaConf.create(text)))  # type: ignore[assignment]
    return restore_settings(settings)


def _may_differ(key: str) -> bool:
    group, _, rest = key.partition(".")
    return group in OWN_KEYS or (group == "data" and rest in OWN_DATA)
