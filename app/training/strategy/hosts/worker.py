"""The training process of a host, started by `supervise`: joins the others, trains, says how it ended."""

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
from voxlift.app.config.messages import explain, is_user_error
from voxlift.app.progress import console
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runtime.exit_status import CRASH, DONE, INTERRUPTED, USER_ERROR
from voxlift.app.training.checkpoints import needed_to_resume
from voxlift.app.training.strategy.hosts.agreement import agree_on_settings
from voxlift.app.training.strategy.hosts.channel import Channel, take_up
from voxlift.app.training.strategy.hosts.cluster_environment import Member
from voxlift.app.training.strategy.hosts.exit import Ending, is_lost
from voxlift.app.training.strategy.hosts.rendezvous import hand_out, hear, join


def main() -> None:
    """Take up the channel whose number is the only argument, and do what comes over it."""
    channel = take_up(int(sys.argv[1]))
    order = channel.receive()
    channel.when_closed(lambda: os._exit(INTERRUPTED))  # nobody is left to report to
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is deaf to it
    separate_output()
    member = Member(**order["member"])
    ending = Ending(channel, member)
    try:
        join_others(channel, member, ending)
        train_with_others(order, member)
    except KeyboardInterrupt:
        ending.end(INTERRUPTED, "it was interrupted.")
    except BaseException as error:  # noqa: BLE001 - whatever it is, the other hosts wait for this one
        _end_badly(ending, error)
    ending.end(DONE, "")


def separate_output() -> None:
    """Keep for Python what goes to the terminal; what the engine prints joins its messages on stderr."""
    sys.stdout.flush()
    shown = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(shown, "w", buffering=1, encoding="utf-8", errors="replace")


def join_others(channel: Channel, member: Member, ending: Ending) -> None:
    """Meet the other processes, and from then on look after them."""
    join(
        member.coordinator,
        count=member.count,
        index=member.index,
        wait_seconds=member.wait_seconds,
    )
    channel.send({"joined": True})
    ending.watch()
    threading.Thread(target=_report_run, args=(channel,), daemon=True).start()


def train_with_others(order: dict[str, Any], member: Member) -> None:
    """Train or go on as the order says; only host 0 speaks and writes.

    Raises:
        SettingsError: the hosts were told different things; and whatever a training raises.
    """
    from voxlift.app.training.train import (  # takes seconds to import: only when the others are met
        resume,
        train,
    )

    console.quiet = not member.leads
    folder = Path(order["folder"])
    settings = agree_on_settings(order["settings"])
    if not member.leads:
        settings = replace(settings, run_dir=str(folder), logger=LoggerSettings(tensorboard=False))
    if not order["resumes"]:
        train(settings)
        return
    run = RunFolder(Path(str(settings.run_dir)))
    hand_out(needed_to_resume(run) if member.leads else [], run.path)
    resume(run, settings)


def _report_run(channel: Channel) -> None:
    try:
        channel.send({"run": hear("run")})
    except Exception:  # noqa: BLE001 - the training ended before there was one
        return


def _end_badly(ending: Ending, error: BaseException) -> None:
    traceback.print_exc()  # shown where it is a crash of ours, or debug=true asks for it
    if is_user_error(error):
        ending.end(USER_ERROR, explain(error, command="train"))
    if is_lost(error):
        ending.end_lost(error)
    ending.end(CRASH, f"{type(error).__name__}: {error}".split("\n", maxsplit=1)[0])


if __name__ == "__main__":
    main()
