"""The commands, one module each: read the settings, check them, call one function."""

import time

# Before the imports of the command, which on a busy machine take many seconds; taken by the first command.
STARTED = [time.monotonic()]
