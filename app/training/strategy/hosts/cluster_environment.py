"""The place of this process among several: from the settings, or from Slurm."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from voxlift.app.config import HostsSettings, SettingsError

FIRST_PORT, PORTS = 61440, 4096  # a job's port where nobody names one: above those that systems hand out


@dataclass(frozen=True)
class ClusterEnvironment:
    """The place of a process: one of `count`, with the address of process 0 as `coordinator`."""

    coordinator: str
    count: int
    index: int
    wait_seconds: int

    @property
    def leads(self) -> bool:
        """Whether this process writes the run folder."""
        return self.index == 0

    @property
    def address(self) -> tuple[str, int]:
        """Name and port of the coordinator."""
        name, _, port = self.coordinator.rpartition(":")
        return name.strip("[]"), int(port)

    def __str__(self) -> str:
        """Return the name for messages."""
        return f"host {self.index} of {self.count}"


def find_cluster_environment(settings: HostsSettings, environment: Mapping[str, str]) -> ClusterEnvironment:
    """Return the place of this process; Slurm's variables complete the settings.

    Args:
        settings: Of the command line.
        environment: Its variables.

    Raises:
        SettingsError: Listing what is missing or contradictory.
    """
    coordinator = settings.coordinator or _slurm_coordinator(environment)
    count = _first_number(settings.count, environment.get("SLURM_NTASKS"))
    index = _first_number(settings.index, environment.get("SLURM_PROCID"))
    problems = [
        *_address_problems(coordinator),
        *_number_problems(count, index),
        *_wait_problems(settings.wait_seconds),
    ]
    if problems or coordinator is None or count is None or index is None:
        raise SettingsError("\n".join(problems))
    return ClusterEnvironment(coordinator, count, index, settings.wait_seconds)


def is_in_cluster(settings: HostsSettings, environment: Mapping[str, str]) -> bool:
    """Return whether settings or Slurm make this process one of several."""
    return settings.index is not None or (_first_number(None, environment.get("SLURM_NTASKS")) or 1) > 1


def first_host(nodes: str) -> str:
    """Return the first of a Slurm list of hosts.

    >>> first_host("node[003-007,012],gpu1"), first_host("alpha,beta"), first_host("a[1,4]b")
    ('node003', 'alpha', 'a1b')
    """
    found = re.match(r"([^\[,]*)(?:\[([^\],-]+)[^\]]*\]([^,\[]*))?", nodes)
    return "".join(part or "" for part in found.groups()) if found else nodes


def _slurm_coordinator(environment: Mapping[str, str]) -> str | None:
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST")
    job = environment.get("SLURM_JOB_ID", "")
    return f"{first_host(nodes)}:{FIRST_PORT + int(job) % PORTS}" if nodes and job.isdigit() else None


def _first_number(given: int | None, slurm: str | None) -> int | None:
    if given is not None:
        return given
    return int(slurm) if slurm is not None and slurm.isdigit() else None


def _address_problems(coordinator: str | None) -> list[str]:
    if coordinator is None:
        needed = "hosts.coordinator: strategy=hosts needs it outside Slurm; set hosts.coordinator=HOST:PORT"
        return [f"{needed}, the name of host 0 and a free port of it, the same on all hosts."]
    name, _, port = coordinator.rpartition(":")
    if name and port.isdigit() and 0 < int(port) < 2**16:
        return []
    return [f"hosts.coordinator: expected HOST:PORT, the address of host 0; received {coordinator}."]


def _number_problems(count: int | None, index: int | None) -> list[str]:
    problems = []
    if count is None:
        problems.append("hosts.count: strategy=hosts needs it outside Slurm: the number of processes.")
    elif count < 2:
        problems.append(
            f"hosts.count: expected at least 2 processes; received {count}. Under Slurm start the command by "
            "srun; on one host set strategy=single or mirrored."
        )
    if index is None:
        problems.append(
            "hosts.index: strategy=hosts needs it outside Slurm; 0 is the host that writes the run."
        )
    elif index < 0 or (count is not None and index >= max(count, 1)):
        problems.append(
            f"hosts.index: expected 0 to {max(count or 1, 1) - 1} for hosts.count={count}; received {index}."
        )
    return problems


def _wait_problems(seconds: int) -> list[str]:
    return [] if seconds > 0 else [f"hosts.wait_seconds: expected more than 0; received {seconds}."]
