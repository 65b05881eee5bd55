"""The exit statuses of all commands, and that of a child process which was ended for its time."""

from __future__ import annotations

DONE = 0
FOUND = 1  # the audit found something that spoils training
USER_ERROR = 2  # the user's input or configuration is at fault
CRASH = 70  # of ours, with its traceback, or of the engine
LOST = 75  # a process of several was lost, and the run can go on
TIMED_OUT = 124
INTERRUPTED = 130
