"""Serve trainings, each in a process that is killed with SIGKILL at an exact moment.

    python killed_training.py

Reads a line of JSON for each training on its standard input:

    {"folder": RUN_DIR, "kind": "batch" or "file", "moment": N or NAME, "arguments": [...], "output": FILE}

starts it as `voxlift-train` starts, in a fork that has imported everything already, and waits until it
stops itself at its N-th batch or file of the folder (or the file NAME, written but not yet in its place), or
comes to its end. A stopped training is killed. The answer is {"killed": ..., "status": ...}. No moment is
waited for by a clock, so that a busy machine changes nothing.
"""

import importlib
import json
import os
import signal
import sys

from voxlift.app.cli.command import run_command
from voxlift.app.cli.train import read_settings, start
from voxlift.app.training.callbacks.stateful import StepCounter

# What a training imports late, too: a fork shall not pay for it.
for room in (
    "voxlift.app.training.train",
    "voxlift.app.training.preflight.check",
    "voxlift.app.training.fit",
):
    importlib.import_module(room)

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CEILING = 7200  # seconds; a training that hangs is ended by SIGALRM


def train(asked):
    """In the fork: train, and leave the process."""
    signal.alarm(CEILING)
    handle = os.open(asked["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    counts = stop_at(asked["folder"], asked["kind"], str(asked["moment"]))
    sys.argv = ["voxlift-train", *asked["arguments"]]
    try:
        run_command("train", read=read_settings, job=start)  # itself, not in a process of its own
    finally:
        print("counted", *counts.values())  # noqa: T201 - the test reads it


def stop_at(folder, kind, moment):
    """Let this process stop itself at a moment; the numbers of batches and files that it keeps counting."""
    counts = {"batch": 0, "file": 0}

    def count(what, name=""):
        counts[what] += 1
        if what == kind and moment in {str(counts[what]), name}:
            os.kill(os.getpid(), signal.SIGSTOP)

    def watch_files(event, values):
        """Before a file in the run folder is opened for writing, or takes its place there."""
        if event == "open" and isinstance(values[0], str) and values[2] & WRITES:
            path = values[0]
        elif event == "os.rename":
            path = os.fspath(values[1])
        else:
            return
        if path.startswith(folder + os.sep):
            count("file", os.path.basename(path))  # noqa: PTH119 - pathlib audits in its turn

    end_batch = StepCounter.on_train_batch_end

    def watch_batches(self, batch, logs=None):
        end_batch(self, batch, logs)
        count("batch")

    StepCounter.on_train_batch_end = watch_batches
    sys.addaudithook(watch_files)
    return counts


def answer(asked):
    """Run one training to its stop or its end."""
    child = os.fork()
    if not child:
        train(asked)
    _, status = os.waitpid(child, os.WUNTRACED)
    is_stopped = os.WIFSTOPPED(status)
    if is_stopped:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    return {"killed": is_stopped, "status": os.waitstatus_to_exitcode(status)}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)  # noqa: T201 - the protocol
