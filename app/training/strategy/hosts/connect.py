"""Check that host 0 can be reached, before JAX is started."""

from __future__ import annotations

import socket
import time

from voxlift.app.config import SettingsError
from voxlift.app.progress import print_line
from voxlift.app.training.strategy.hosts.cluster_environment import ClusterEnvironment

PAUSE = 0.2  # seconds between two tries


def await_coordinator(cluster: ClusterEnvironment) -> None:
    """Wait until host 0 accepts connections.

    Raises:
        SettingsError: It does not within `hosts.wait_seconds`.
    """
    until, has_said = time.monotonic() + cluster.wait_seconds, False
    while (problem := _try_connect(cluster)) is not None:
        if time.monotonic() > until:
            raise SettingsError(
                f"hosts.coordinator={cluster.coordinator}: host 0 cannot be reached ({problem}), tried for "
                f"{cluster.wait_seconds} s. Is it started, is its name right, and may its port be used? "
                "hosts.wait_seconds=... waits longer."
            )
        if not has_said:
            has_said = True
            print_line(
                f"Host {cluster.index} of {cluster.count}: waiting for host 0 at {cluster.coordinator}"
            )
        time.sleep(PAUSE)


def refuse_taken_port(cluster: ClusterEnvironment) -> None:
    """Pass when this host can listen at the port of the coordinator.

    Raises:
        SettingsError: Another program does.
    """
    _, port = cluster.address
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("", port))
        except OSError as error:
            raise SettingsError(
                f"hosts.coordinator={cluster.coordinator}: host 0 cannot listen at port {port} "
                f"({error.strerror}); name another one on all hosts."
            ) from error


def _try_connect(cluster: ClusterEnvironment) -> str | None:
    """Return what keeps host 0 from answering; None where it answers."""
    try:
        socket.create_connection(cluster.address, timeout=2).close()
    except OSError as error:
        return error.strerror or str(error)
    return None
