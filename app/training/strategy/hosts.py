"""Train with `strategy=hosts`: connect the processes, agree, exchange files, and end so that none waits.

The keys of `hosts` name the place of this process, or JAX reads it from Slurm, Open MPI and the like.
When a process is lost, JAX raises an error in the others, or aborts them: the process that supervises the
command (`runtime.failures`) then reports it.

What the processes exchange besides gradients (settings, agreement, failures, files) passes by the collective
operations of `jax.experimental.multihost_utils`, in which every process takes part at the same point of the
program, and waits as long as another one works.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from omegaconf import OmegaConf

from voxlift.app.config import HostsSettings, LoggerSettings, SettingsError, TrainSettings
from voxlift.app.config.messages import describe_error, is_user_error
from voxlift.app.config.overrides import dump_settings, flatten, restore_settings
from voxlift.app.errors import UserError, refuse_problems
from voxlift.app.progress import console, print_line
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runtime.devices import backend_name, check_backend
from voxlift.app.runtime.exit_status import CRASH, INTERRUPTED, LOST, USER_ERROR
from voxlift.app.runtime.failures import send_hints, sent_hints
from voxlift.app.runtime.streams import keep_stdout_for_python

if TYPE_CHECKING:
    from voxlift.app.data.cohort import Cohort


JAX_VARIABLES = {"KERAS_BACKEND": "jax"}
# Variables that JAX reads, too: the number of processes and the index of this one, for each launcher.
LAUNCHERS = {"SLURM_NTASKS": "SLURM_PROCID", "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK"}
LINGER = 3.0  # seconds that host 0 stays after an error: when it ends, JAX aborts the others
LOST_WORDS = (
    "gloo",
    "nccl",
    "connection reset",
    "connection closed",
    "coordination service",
    "socket closed",
    "heartbeat",
)
PIECE = 2**24  # bytes of a file that are sent at once
# What hosts may have of their own: places on their disks, and what only host 0 writes.
OWN_KEYS = ("hosts", "run_dir", "runs_folder", "cache", "logger", "debug")
OWN_DATA = ("folder", "root", "table", "npz")


def check_hosts(settings: TrainSettings, environment: Mapping[str, str] = os.environ) -> None:
    """Pass when JAX is installed, no other backend is asked for, and the keys of `hosts` fit together.

    Raises:
        SettingsError: Listing all problems of the keys, or what to install or to unset.
    """
    refuse_problems(find_hosts_problems(settings.hosts, environment))
    if backend_name({**JAX_VARIABLES, **environment}) != "jax":
        raise SettingsError(
            f"strategy=hosts: expected the JAX backend; received KERAS_BACKEND={backend_name(environment)}. "
            "Unset KERAS_BACKEND: the training is started with jax."
        )
    check_backend(JAX_VARIABLES)


def find_hosts_problems(hosts: HostsSettings, environment: Mapping[str, str]) -> list[str]:
    """Return what is missing or contradictory in the keys of `hosts`; a launcher can stand for them."""
    problems = [
        f"hosts.{key}: expected more than 0; received {getattr(hosts, key)}."
        for key in ("wait_seconds", "heartbeat_seconds")
        if getattr(hosts, key) <= 0
    ]
    given = {key: getattr(hosts, key) for key in ("coordinator", "count", "index")}
    missing = [f"hosts.{key}" for key, value in given.items() if value is None]
    if len(missing) == len(given) and is_launched(hosts, environment):
        return problems
    if missing:
        needed = "set hosts.coordinator=HOST:PORT, hosts.count=N and hosts.index=0 (to N-1)"
        problems.append(
            f"{', '.join(missing)}: strategy=hosts needs them without Slurm or Open MPI; {needed}."
        )
    return [*problems, *_find_place_problems(hosts)]


def _find_place_problems(hosts: HostsSettings) -> list[str]:
    problems = []
    name, _, port = (hosts.coordinator or "host:1").rpartition(":")
    if not (name and port.isdigit() and 0 < int(port) < 2**16):
        problems.append(
            f"hosts.coordinator: expected HOST:PORT, the address of host 0; received {hosts.coordinator}."
        )
    if hosts.count is not None and hosts.count < 2:
        problems.append(
            f"hosts.count: expected at least 2 processes; received {hosts.count}. On one host set "
            "strategy=single or mirrored."
        )
    if hosts.index is not None and not 0 <= hosts.index < max(hosts.count or hosts.index + 1, 1):
        problems.append(
            f"hosts.index: expected 0 to {max(hosts.count or 1, 1) - 1} for hosts.count={hosts.count}; "
            f"received {hosts.index}."
        )
    return problems


def is_launched(hosts: HostsSettings, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether keys or a launcher make this process one of several."""
    counts = [environment.get(name, "") for name in LAUNCHERS]
    return hosts.index is not None or any(count.isdigit() and int(count) > 1 for count in counts)


def leads(hosts: HostsSettings, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether keys or a launcher make this the process 0."""
    return hosts.index == 0 or (
        hosts.index is None and any(environment.get(index) == "0" for index in LAUNCHERS.values())
    )


def is_resumed_by_other_host(path: str, hosts: HostsSettings, environment: Mapping[str, str]) -> bool:
    """Return whether only host 0 has the run folder, which then sends what this host needs."""
    has_folder = RunFolder(Path(path).expanduser()).config.exists()
    return not has_folder and is_launched(hosts, environment) and not leads(hosts, environment)


def train_on_hosts(settings: TrainSettings | None, hosts: HostsSettings, *, resumes: bool = False) -> int:
    """Train or resume on this host, together with the others; the process ends here after an error.

    Args:
        settings: Of the training; None takes those that host 0 resumes with.
        hosts: The place of this process.
        resumes: Whether the run in `settings.run_dir` is resumed.

    Returns:
        The exit status, 0.

    Raises:
        SettingsError: The keys of `hosts` do not fit together, or JAX is not installed.
    """
    check_hosts(replace(settings or TrainSettings(), hosts=hosts))
    _prepare_environment(settings, hosts)
    keep_stdout_for_python()
    try:
        with tempfile.TemporaryDirectory(prefix="voxlift-host-") as folder:
            _connect(hosts)
            return _train(settings, Path(folder), resumes=resumes)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the other hosts wait for this one
        _exit_after(error)


def _prepare_environment(settings: TrainSettings | None, hosts: HostsSettings) -> None:
    """Set what JAX and Keras read when they are imported, which has not happened yet."""
    os.environ.update(JAX_VARIABLES)
    if hosts.coordinator and any("_proxy" in name.lower() for name in os.environ):
        os.environ.update(no_grpc_proxy=hosts.coordinator.rpartition(":")[0])  # a proxy knows no such host
    if settings is not None and settings.device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    if settings is not None and settings.deterministic:  # read when the devices are connected
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()


def _connect(hosts: HostsSettings) -> None:
    """Connect this process and its devices to the others.

    Raises:
        SettingsError: Neither keys nor a launcher name the place of this process.
    """
    import jax
    from jax.experimental import multihost_utils

    address = hosts.coordinator or "the first host"
    send_hints(
        lost=f"Not all hosts connected to {address} within {hosts.wait_seconds} s. Start the command on "
        "every host at the same time; hosts.wait_seconds=... waits longer."
    )
    # Without it JAX cannot add up what lies on the CPUs of several processes.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            hosts.coordinator,
            num_processes=hosts.count,
            process_id=hosts.index,
            initialization_timeout=hosts.wait_seconds,
            heartbeat_timeout_seconds=hosts.heartbeat_seconds,
            # With all keys given, each process uses all devices that it sees, under a launcher, too.
            cluster_detection_method="deactivate" if hosts.coordinator else None,
        )
    except ValueError as error:
        raise SettingsError(f"strategy=hosts: JAX cannot connect the hosts: {error}") from error
    multihost_utils.sync_global_devices("devices")  # while all are here: JAX waits two minutes for them
    send_hints(
        lost="Another host was lost: its process ended, or cannot be reached. Use the same keys of hosts to "
        "resume, on every host."
    )


def _train(settings: TrainSettings | None, folder: Path, *, resumes: bool) -> int:
    """Train as host 0 does; the other hosts print nothing, and their run folder is temporary."""
    # These take seconds to import: only when all are connected.
    from voxlift.app.training.checkpoints import files_to_resume
    from voxlift.app.training.strategy.distribute import refuse_uneven_shares
    from voxlift.app.training.train import train

    console.quiet = not is_leader()
    settings = agree_on_settings(None if settings is None else dump_settings(settings))
    refuse_uneven_shares(settings)
    if not is_leader():
        settings = replace(settings, run_dir=str(folder / "run"), logger=LoggerSettings(tensorboard=False))
    if not resumes:
        return _report(train(settings))
    run = RunFolder(Path(str(settings.run_dir)))
    send_files(files_to_resume(run) if is_leader() else [], run.path)
    return _report(train(settings, run))


def is_leader() -> bool:
    """Return whether this is process 0, which writes the run folder."""
    import jax

    return int(jax.process_index()) == 0


def _report(status: int) -> int:
    if not is_leader():
        console.quiet = False
        print_line("This host is done; host 0 writes the run folder.")
    return status


def _exit_after(error: BaseException) -> NoReturn:
    """Print an error, and end at once: the usual end of JAX waits for hosts that are gone."""
    status, message = describe_exit(error)
    if status == CRASH:
        traceback.print_exception(error)
    sys.stderr.write(f"error: {message}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    if is_leader():
        time.sleep(LINGER)
    os._exit(status)


def describe_exit(error: BaseException) -> tuple[int, str]:
    """Return the exit status after an error, and what to print."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "Interrupted."
    if is_user_error(error):
        return USER_ERROR, describe_error(error, command="train")
    text = f"{type(error).__name__}: {error}"
    if not any(words in text.lower() for words in LOST_WORDS):
        return CRASH, text.split("\n", maxsplit=1)[0]
    hints = sent_hints()
    return LOST, " ".join(hints[key] for key in ("lost", "resume") if key in hints)


def is_follower(settings: TrainSettings) -> bool:
    """Return whether another process writes the run folder."""
    return settings.strategy == "hosts" and not is_leader()


def gather_texts(text: str) -> list[str]:
    """Return the texts of all processes, in their order."""
    import numpy as np  # not for --help
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
    import numpy as np  # as above
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return bytes(np.asarray(broadcast_one_to_all(np.frombuffer(piece, np.uint8))).astype(np.uint8).tobytes())


def _read(text: str) -> TrainSettings:
    schema = OmegaConf.structured(TrainSettings)
    settings: TrainSettings = OmegaConf.to_object(OmegaConf.merge(schema, OmegaConf.create(text)))  # type: ignore[assignment]
    return restore_settings(settings)


def _may_differ(key: str) -> bool:
    group, _, rest = key.partition(".")
    return group in OWN_KEYS or (group == "data" and rest in OWN_DATA)
