"""The process that is started on each host: it runs the training in a child process and reports its end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import IO, Any

from voxlift.app.config import HostsSettings, SettingsError, TrainSettings
from voxlift.app.config.checks import refuse_uneven_batches
from voxlift.app.config.texts import dump_settings
from voxlift.app.runs.folder import refuse_used_folder
from voxlift.app.runtime.child import python_module
from voxlift.app.runtime.devices import backend_name, check_backend
from voxlift.app.runtime.exit_status import CRASH
from voxlift.app.training.strategy.hosts.channel import open_pair
from voxlift.app.training.strategy.hosts.cluster_environment import (
    ClusterEnvironment,
    find_cluster_environment,
)
from voxlift.app.training.strategy.hosts.connect import await_coordinator, refuse_taken_port
from voxlift.app.training.strategy.hosts.summary import Report, classify_exit, print_exit

ENGINE = {"KERAS_BACKEND": "jax"}
SAME_SIGNAL_SECONDS = 2.0  # a process group gets one signal several times within this time
MODULE = "voxlift.app.training.strategy.hosts.worker"


def check_engine(environment: Mapping[str, str] = os.environ) -> None:
    """Pass when JAX is installed, and no other backend is asked for.

    Raises:
        SettingsError: With what to install or to unset.
    """
    if backend_name({**ENGINE, **environment}) != "jax":
        raise SettingsError(
            f"strategy=hosts: expected the JAX backend; received KERAS_BACKEND={backend_name(environment)}. "
            "Unset KERAS_BACKEND: the training is started with jax."
        )
    check_backend(ENGINE)


def supervise(settings: TrainSettings | None, hosts: HostsSettings, *, resumes: bool = False) -> int:
    """Train on this host, together with the others.

    Args:
        settings: Of the training; None takes those that host 0 resumes with.
        hosts: The place of this host, where Slurm does not set it.
        resumes: Whether the run in `settings.run_dir` is resumed.

    Returns:
        The exit status.

    Raises:
        SettingsError: This host cannot take part.
    """
    check_engine()
    cluster = find_cluster_environment(hosts, os.environ)
    if settings is not None:
        refuse_uneven_batches(settings.trainer.batch_size, cluster.count)
        if cluster.leads and not resumes:
            refuse_used_folder(settings.run_dir)
    (refuse_taken_port if cluster.leads else await_coordinator)(cluster)
    with tempfile.TemporaryDirectory(prefix="voxlift-host-") as folder, tempfile.TemporaryFile() as noise:
        order = {
            "settings": None if settings is None else dump_settings(settings),
            "member": asdict(cluster),
            "folder": folder,
            "resumes": resumes,
        }
        device = "auto" if settings is None else settings.device
        report, code = _run_worker(order, noise, environment=_environment(cluster, device=device))
        noise.seek(0)
        stderr = noise.read().decode(errors="replace")
    status, message = classify_exit(report, code, stderr=stderr, cluster=cluster)
    if status == CRASH or (settings is not None and settings.debug):
        sys.stderr.write(stderr)
    print_exit(status, message, report=report, cluster=cluster, is_slurm=hosts.coordinator is None)
    return status


def _run_worker(
    order: Mapping[str, Any], noise: IO[bytes], *, environment: Mapping[str, str]
) -> tuple[Report, int]:
    ours, theirs = open_pair()
    child = subprocess.Popen(  # noqa: S603 - our own module, no shell
        python_module(MODULE, str(theirs.descriptor)),
        env=environment,
        stdin=subprocess.DEVNULL,
        stderr=noise,
        pass_fds=[theirs.descriptor],
        process_group=0,  # Ctrl-C reaches it through us alone, once
    )
    theirs.close()
    report = Report()
    with _forward_signals(child):
        ours.send(dict(order))
        for message in ours.messages():
            report.take(message)
        code = child.wait()
    ours.close()
    return report, code


@contextmanager
def _forward_signals(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Interrupt the training process on the first signal, and kill it on a later one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[float] = []

    def pass_on(_number: int, _frame: object) -> None:
        now = time.monotonic()
        is_again = bool(asked) and now - asked[0] > SAME_SIGNAL_SECONDS
        child.send_signal(signal.SIGKILL if is_again else signal.SIGINT)
        asked.append(now)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _environment(cluster: ClusterEnvironment, *, device: str) -> dict[str, str]:
    changed = {
        **ENGINE,
        "COLUMNS": str(shutil.get_terminal_size().columns),  # it cannot ask a terminal on stderr
    }
    if any("_proxy" in name.lower() for name in os.environ):
        changed["no_grpc_proxy"] = cluster.address[0]  # a cluster's proxy knows nothing of its own hosts
    if device == "cpu":
        changed["JAX_PLATFORMS"] = "cpu"
    return {**os.environ, **changed}
