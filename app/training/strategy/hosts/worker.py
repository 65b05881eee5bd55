"""The training process of a host, started by `supervise`: it connects, trains, and reports how it ended."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

from voxlift.app.config import LoggerSettings
from voxlift.app.config.messages import describe_error, is_user_error
from voxlift.app.progress import console
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runtime.exit_status import CRASH, DONE, INTERRUPTED, USER_ERROR
from voxlift.app.training.checkpoints import files_to_resume
from voxlift.app.training.strategy.hosts.channel import Channel, open_channel
from voxlift.app.training.strategy.hosts.cluster_environment import ClusterEnvironment
from voxlift.app.training.strategy.hosts.exit import ProcessExit, is_connection_error
from voxlift.app.training.strategy.hosts.rendezvous import agree_on_settings, initialize, send_files, wait_for


def main() -> None:
    """Open the channel whose descriptor is the only argument, and run the training that it asks for."""
    channel = open_channel(int(sys.argv[1]))
    order = channel.receive()
    channel.when_closed(lambda: os._exit(INTERRUPTED))  # nobody is left to report to
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is deaf to it
    separate_output()
    cluster = ClusterEnvironment(**order["member"])
    ending = ProcessExit(channel, cluster)
    try:
        connect_to_cluster(channel, cluster, ending)
        train_in_cluster(order, cluster)
    except KeyboardInterrupt:
        ending.end(INTERRUPTED, "it was interrupted.")
    except BaseException as error:  # noqa: BLE001 - whatever it is, the other hosts wait for this one
        _exit_with_error(ending, error)
    ending.end(DONE, "")


def separate_output() -> None:
    """Keep stdout for Python's output; what JAX prints there goes to stderr."""
    sys.stdout.flush()
    shown = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(shown, "w", buffering=1, encoding="utf-8", errors="replace")


def connect_to_cluster(channel: Channel, cluster: ClusterEnvironment, ending: ProcessExit) -> None:
    """Connect to the other processes, and watch them from then on."""
    initialize(
        cluster.coordinator,
        count=cluster.count,
        index=cluster.index,
        wait_seconds=cluster.wait_seconds,
    )
    channel.send({"joined": True})
    ending.watch()
    threading.Thread(target=_report_run, args=(channel,), daemon=True).start()


def train_in_cluster(order: dict[str, Any], cluster: ClusterEnvironment) -> None:
    """Train or resume as asked for; only host 0 prints and writes.

    Raises:
        SettingsError: The hosts have different settings; and all that a training raises.
    """
    from voxlift.app.training.train import (  # takes seconds to import: only when the others are met
        train,
    )

    console.quiet = not cluster.leads
    folder = Path(order["folder"])
    settings = agree_on_settings(order["settings"])
    if not cluster.leads:
        settings = replace(settings, run_dir=str(folder), logger=LoggerSettings(tensorboard=False))
    if not order["resumes"]:
        train(settings)
        return
    run = RunFolder(Path(str(settings.run_dir)))
    send_files(files_to_resume(run) if cluster.leads else [], run.path)
    train(settings, run)


def _report_run(channel: Channel) -> None:
    try:
        channel.send({"run": wait_for("run")})
    except Exception:  # noqa: BLE001 - the training ended before there was one
        return


def _exit_with_error(ending: ProcessExit, error: BaseException) -> None:
    traceback.print_exc()  # shown where it is a crash of ours, or debug=true asks for it
    if is_user_error(error):
        ending.end(USER_ERROR, describe_error(error, command="train"))
    if is_connection_error(error):
        ending.exit_lost(error)
    ending.end(CRASH, f"{type(error).__name__}: {error}".split("\n", maxsplit=1)[0])


if __name__ == "__main__":
    main()
