"""The commands, one module each: read the settings, check them, call one function."""

import time

STARTED = time.monotonic()  # before the imports of the command, which on a busy machine take many seconds
