"""The exit statuses of all commands, and that of a child process which exceeded its time limit."""

from __future__ import annotations

DONE = 0
FOUND = 1  # the audit found something that would spoil training
USER_ERROR = 2  # the user's input or configuration is at fault
CRASH = 70  # an error of Voxlift's own, with its traceback, or a crash of TensorFlow or JAX
LOST = 75  # one of several processes was lost; the run can be resumed
TIMED_OUT = 124
INTERRUPTED = 130
