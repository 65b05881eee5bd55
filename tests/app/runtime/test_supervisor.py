"""A supervised command reports how it ended; signals and exit statuses are as without a supervisor."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from voxlift.app.runtime.failures import ProcessEnd, _count_memory_kills, send_hints

ROOT = Path(__file__).parents[3]
COMMAND = """
import os, signal, sys, time
from voxlift.app.runtime.failures import fork_supervised, send_hints
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever starts tests in the background ignores it
fork_supervised()
send_hints(setting="batch_size=8", fix="Fix: batch_size=4.")
send_hints(resume="Resume: runs/x")
print(os.getpid(), flush=True)
"""


def start(lines, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND + lines, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end_of(lines, *arguments):
    child = start(lines, *arguments)
    _, message = child.communicate()
    return child.returncode, message.strip().split("\n")[-1]


def test_an_exit_status_is_passed_on():
    for status in (0, 2, 70, 130):
        assert end_of(f"sys.exit({status})")[0] == status


def test_a_crash_is_reported_with_signal_memory_setting_fix_and_how_to_resume():
    for number, status in ((signal.SIGSEGV, 70), (signal.SIGABRT, 70), (signal.SIGKILL, 137)):
        found, message = end_of(f"os.kill(os.getpid(), {int(number)})")
        assert found == status
        assert message.startswith("error: ")
        assert f"with batch_size=8 ({signal.Signals(number).name}; " in message
        assert re.search(r"0\.\d GB", message)
        assert message.endswith("Fix: batch_size=4. Resume: runs/x")


def test_a_signal_from_outside_is_forwarded_and_the_message_states_how_to_resume():
    child = start("time.sleep(600)")
    assert int(child.stdout.readline()) != child.pid
    child.terminate()
    _, message = child.communicate()
    assert child.returncode == 128 + signal.SIGTERM
    assert "SIGTERM" in message
    assert message.strip().endswith("Resume: runs/x")
    assert "Fix" not in message


def test_an_interrupt_arrives_once_although_two_processes_get_it():
    child = start(
        """
try:
    print("ready", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    time.sleep(0.5)  # in which the forwarded one arrives
    sys.exit(130)
"""
    )
    inner = int(child.stdout.readline())
    assert child.stdout.readline() == "ready\n"
    os.kill(inner, signal.SIGINT)
    child.send_signal(signal.SIGINT)
    _, message = child.communicate()
    assert (child.returncode, message) == (130, "")


def test_a_command_ends_with_its_supervisor():
    child = start("time.sleep(600)")
    child.stdout.readline()
    child.kill()
    child.communicate()  # returns when nobody holds the other end of its output any more


def test_a_debugger_finds_one_process():
    child = start("", "debug=true")
    assert int(child.stdout.readline()) == child.pid
    child.communicate()


def test_a_process_that_the_kernel_killed_for_lack_of_memory_is_the_users_to_fix(tmp_path):
    end = ProcessEnd(signal.SIGKILL, 21_300_000_000, is_memory=True, hints={"setting": "batch_size=8"})
    assert end.exit_status == 2
    assert "Out of memory with batch_size=8" in end.describe()
    assert "21.3 GB" in end.describe()
    (tmp_path / "vmstat").write_text("pgpgin 12\noom_kill 3\n")
    assert _count_memory_kills(tmp_path / "vmstat") == 3
    assert _count_memory_kills(tmp_path / "none") == 0


def test_without_a_supervisor_hints_go_nowhere():
    send_hints(fix="x")
