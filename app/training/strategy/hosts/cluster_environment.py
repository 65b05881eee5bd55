"""Which of several processes this one is: from the settings, or from Slurm."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from voxlift.app.config import HostsSettings, SettingsError

FIRST_PORT, PORTS = 61440, 4096  # a job's port where nobody names one: above those that systems hand out


@dataclass(frozen=True)
class ClusterEnvironment:
    """One of `count` processes, which meet at `coordinator`, the address of process 0."""

    coordinator: str
    count: int
    index: int
    wait_seconds: int

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes the run folder."""
        return self.index == 0

    @property
    def address(self) -> tuple[str, int]:
        """Name and port of the coordinator."""
        name, _, port = self.coordinator.rpartition(":")
        return name.strip("[]"), int(port)

    def __str__(self) -> str:
        """As a sentence calls it."""
        return f"host {self.index} of {self.count}"


def find_cluster_environment(settings: HostsSettings, environment: Mapping[str, str]) -> ClusterEnvironment:
    """This process among the others; Slurm's variables fill in what the settings leave open.

    Args:
        settings: as given on this process's command line.
        environment: its variables.

    Raises:
        SettingsError: listing what is missing or contradicts itself.
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
    """Whether anything says that this process is one of several."""
    return settings.index is not None or (_first_number(None, environment.get("SLURM_NTASKS")) or 1) > 1


def first_host(nodes: str) -> str:
    """The first of a Slurm list of hosts.

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
        needed = "hosts.coordinator: strategy=hosts needs it outside Slurm; say hosts.coordinator=HOST:PORT"
        return [f"{needed}, the name of host 0 and a free port of it, the same on all hosts."]
    name, _, port = coordinator.rpartition(":")
    if name and port.isdigit() and 0 < int(port) < 2**16:
        return []
    return [f"hosts.coordinator: expected HOST:PORT, the address of host 0; received {coordinator}."]


def _number_problems(count: int | None, index: int | None) -> list[str]:
    problems = []
    if count is None:
        problems.append("hosts.count: strategy=hosts needs it outside Slurm; say how many processes train.")
    elif count < 2:
        problems.append(
            f"hosts.count: expected at least 2 processes; received {count}. Under Slurm start the command by "
            "srun; on one host say strategy=single or mirrored."
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
