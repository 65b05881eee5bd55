"""How a training process ended: its exit status, a sentence, and how to resume."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxlift.app.progress import print_line
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runtime.exit_status import CRASH, DONE, INTERRUPTED, LOST
from voxlift.app.training.strategy.hosts.cluster_environment import ClusterEnvironment


@dataclass
class Report:
    """What the training process reported: whether it connected, its run folder, and its end."""

    has_joined: bool = False
    run: str | None = None
    ended: Mapping[str, Any] | None = None

    def take(self, message: Mapping[str, Any]) -> None:
        """Take a message of the process."""
        self.has_joined = self.has_joined or "joined" in message
        self.run = message.get("run", self.run)
        self.ended = message.get("ended", self.ended)


def classify_exit(report: Report, code: int, *, stderr: str, cluster: ClusterEnvironment) -> tuple[int, str]:
    """Return the exit status and a sentence on how the process ended; an empty one where it succeeded.

    Args:
        report: What it reported.
        code: Its exit status, negative for a signal.
        stderr: What it and JAX wrote to stderr.
        cluster: Where this host stands.
    """
    if report.ended is not None:
        return int(report.ended["status"]), str(report.ended["message"])
    if code >= 0:
        return CRASH, f"its training process ended with status {code}."
    if code != -signal.SIGABRT or "distributed service" not in stderr:
        name = signal.Signals(-code).name
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        return LOST, f"its training process was killed by {name}{hint}."
    if not report.has_joined:
        return LOST, (
            f"not all {cluster.count} hosts connected to {cluster.coordinator} in {cluster.wait_seconds} s. "
            "Start the command on every host at the same time; hosts.wait_seconds=... waits longer."
        )
    return LOST, _describe_abort(stderr, cluster)


def resume_instruction(run: str | None, cluster: ClusterEnvironment, *, is_slurm: bool) -> str:
    """Return how to resume the training."""
    if run is None:
        return "Nothing was trained yet: start the same command again on every host."
    if is_slurm:
        return f"Resume from the newest checkpoint: srun voxlift-train resume={run}"
    return (
        f"Resume from the newest checkpoint, on every host: voxlift-train resume={run} "
        f"hosts.coordinator={cluster.coordinator} hosts.count={cluster.count} "
        f"hosts.index=0 (to {cluster.count - 1})"
    )


def _describe_abort(stderr: str, cluster: ClusterEnvironment) -> str:
    """Return a sentence on the lost host, from the last lines of stderr."""
    found = re.search(r"task:(\d+)|task_id[:=] ?(\d+)", stderr)
    index = int(next(group for group in found.groups() if group)) if found else 0
    index = 0 if index == cluster.index else index
    where = f" ({cluster.coordinator})" if index == 0 else ""
    return f"host {index}{where} was lost: its process was killed or cannot be reached."


def print_exit(
    status: int, message: str, *, report: Report, cluster: ClusterEnvironment, is_slurm: bool
) -> None:
    """Print how the training ended on this host, and write it to the log of the run."""
    if status == DONE:
        if not cluster.leads:
            print_line(f"Host {cluster.index} of {cluster.count} is done; host 0 writes {report.run}")
        return
    if status == INTERRUPTED:
        sys.stderr.write("\nInterrupted.\n")
    sentence = f"{str(cluster).capitalize()}: {message}"
    if status in {LOST, INTERRUPTED}:
        sentence = f"{sentence} {resume_instruction(report.run, cluster, is_slurm=is_slurm)}"
    sys.stderr.write(f"error: {sentence}\n")
    if cluster.leads and report.run and status != DONE:
        with RunFolder(Path(report.run)).log.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {sentence}\n")
