"""A command that prints nothing for long reports what it is doing; lines are printed whole and unchanged."""

import os
import subprocess
import sys
import time

import pytest

from voxlift.app.progress import (
    PIPE_WIDTH,
    SILENT_SECONDS,
    TERMINAL_SECONDS,
    Pulse,
    format_seconds,
    keep_pulse,
    print_line,
)

SCRIPT = """
from voxlift.app.progress import counted_bar, phase, print_line, progress_bar
with phase("Thinking"):
    print_line("inside")
with progress_bar("Reading", 3) as advance, phase("Nested"):
    advance(); advance(); advance()
with counted_bar("Counting") as count:
    count(1, 2)
"""


class FakeClock:
    """A clock that is moved by hand, and the lines that a pulse prints."""

    def __init__(self, seconds=SILENT_SECONDS):
        self.now, self.lines = 0.0, []
        self.pulse = Pulse(seconds, clock=lambda: self.now, write=self.lines.append)

    def run(self, seconds):
        """Let time pass, a check each second as `keep_pulse` does."""
        for _ in range(seconds):
            self.now += 1
            self.pulse.check()


def test_one_long_phase_without_a_count_gets_a_line_about_every_thirty_seconds():
    clock = FakeClock()
    current = clock.pulse.enter("Fitting")
    clock.run(100)
    assert len(clock.lines) == 3
    assert all(line.startswith("Fitting: ") for line in clock.lines)
    clock.pulse.leave(current)
    clock.run(19)
    assert len(clock.lines) == 3
    clock.run(1)
    assert not clock.lines[-1].startswith("Fitting")


def test_many_short_phases_that_print_nothing_are_one_silence():
    clock = FakeClock()
    for name in ("Scoring", "Drawing", "Writing"):
        current = clock.pulse.enter(name)
        clock.run(20)
        clock.pulse.leave(current)
    assert [line.partition(":")[0] for line in clock.lines] == ["Drawing", "Writing"]


def test_a_count_comes_with_the_time_left_and_that_of_a_resumed_training_with_its_own():
    clock = FakeClock()
    current = clock.pulse.enter("Training")
    current.update(50, 100)
    clock.now = 20.0
    current.update(60, 100)  # ten of them within the thirty seconds
    clock.run(30)
    assert "60 of 100" in clock.lines[0]
    assert clock.lines[0].endswith(f"about {format_seconds(30 * 40 / 10)} left")


def test_nothing_is_added_where_something_was_printed_or_a_bar_or_another_process_shows_it():
    clock = FakeClock(TERMINAL_SECONDS)
    for _ in range(10):
        clock.run(9)
        clock.pulse.note_output()
    live = clock.pulse.enter("Reading", is_live=True)
    clock.run(50)
    clock.pulse.leave(live)
    with clock.pulse.silenced():
        clock.run(50)
    assert clock.lines == []
    clock.run(10)
    assert len(clock.lines) == 1


def run_in_pty(columns, **variables):
    """What a script prints on a terminal of that width."""
    import pty

    leader, follower = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm", **variables}
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        if name not in variables:
            environment.pop(name, None)
    child = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=follower, env=environment)
    os.close(follower)
    output = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # the child has closed its end
            break
        if not part:
            break
        output += part
    os.close(leader)
    assert child.wait(timeout=60) == 0
    return output.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize("columns", [60, 160])
def test_a_terminal_gets_bars_within_its_width_without_colours_where_none_are_wanted(columns):
    output = run_in_pty(columns, NO_COLOR="1")
    assert "Reading" in output
    assert "3/3" in output
    assert "\x1b[3" not in output.replace("\x1b[?", "")  # foreground colours
    plain = [line.split("\r")[-1] for line in strip_codes(output).splitlines()]
    assert max(map(len, plain)) <= columns
    assert "\x1b[" in run_in_pty(columns)


def test_a_dumb_terminal_and_a_pipe_get_no_control_codes():
    piped = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True, text=True)
    assert piped.stdout == "inside\n"
    if sys.platform != "win32":
        assert run_in_pty(80, TERM="dumb").replace("\r", "") == "inside\n"


def strip_codes(text):
    """Text without control sequences."""
    import re

    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_the_silence_before_a_command_does_not_count():
    clock = FakeClock()
    clock.now = 1000.0
    with keep_pulse(clock.pulse, every=0.001):
        time.sleep(0.05)
    assert clock.lines == []
    with keep_pulse(clock.pulse, every=0.001):
        clock.now += SILENT_SECONDS
        time.sleep(0.2)
    assert len(clock.lines) == 1
    assert format_seconds(SILENT_SECONDS) in clock.lines[0]


def test_the_imports_of_a_command_count_as_silence():
    clock = FakeClock()
    clock.now = SILENT_SECONDS
    with keep_pulse(clock.pulse, every=0.001, since=0.0):
        time.sleep(0.2)
    assert len(clock.lines) == 1


def test_a_line_is_printed_unchanged(capsys):
    line = f"Results in runs/[bold]/x=1,{'long' * PIPE_WIDTH}"
    print_line(line)
    assert capsys.readouterr().out == f"{line}\n"
