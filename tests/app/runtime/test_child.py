"""A command in a child process: its status, its last words, its time."""

import sys
import time

from voxlift.app.runtime.child import run_child
from voxlift.app.runtime.exit_status import TIMED_OUT


def test_a_child_that_ends_well_has_nothing_to_say():
    assert run_child([sys.executable, "-c", "pass"]) == (0, "")


def test_a_child_that_hangs_is_ended_after_its_time():
    hanging = [sys.executable, "-c", "import time; time.sleep(60)"]
    started = time.monotonic()
    assert run_child(hanging, seconds=0.3) == (TIMED_OUT, "no end within 0.3 s")
    assert time.monotonic() - started < 30
    assert run_child([sys.executable, "-c", "pass"], seconds=60) == (0, "")
