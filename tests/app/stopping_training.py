"""A training that stops itself at its n-th batch or file, to be killed there from outside.

    python stopping_training.py RUN_DIR batch|file N|NAME [argument of voxlift-train ...]

NAME is that of a file: the training stops when it is written, but not yet in its place. With N of 0 it goes
on to its end. At its end it says how many batches and files there were. Stopped, a process does nothing more:
whoever waits for that moment needs no clock.
"""

import os
import signal
import sys

from app.train import main
from app.training.place import Place

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT

folder, kind, moment, *arguments = sys.argv[1:]
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


def watch_batches(self, batch, logs=None):
    end_batch(self, batch, logs)
    count("batch")


end_batch, Place.on_train_batch_end = Place.on_train_batch_end, watch_batches
sys.addaudithook(watch_files)
sys.argv[1:] = arguments
try:
    main()
finally:
    print("counted", *counts.values())  # noqa: T201 - the test reads it
