"""However a command ends, its last line is a sentence; signals and exit statuses are as without."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from voxlift.app.config import TrainerSettings
from voxlift.app.runtime.failures import announce, training_need, way_on
from voxlift.app.runtime.supervisor import End, _memory_kills

ROOT = Path(__file__).parents[3]
COMMAND = """
import os, pathlib, signal, sys, time
from voxlift.app.runtime.failures import announce, training_need, way_on
from voxlift.app.runtime.supervisor import hand_over
from voxlift.app.runs.folder import RunFolder
from voxlift.app.config import TrainerSettings
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever starts tests in the background ignores it
hand_over()
announce(training_need(TrainerSettings(batch_size=8)), way_on(pathlib.Path("runs/x")))
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
    _, told = child.communicate()
    return child.returncode, told.strip().split("\n")[-1]


@pytest.mark.parametrize("status", [0, 2, 70, 130])
def test_an_exit_status_is_handed_on(status):
    assert end_of(f"sys.exit({status})")[0] == status


@pytest.mark.parametrize(
    ("number", "status", "begins"),
    [
        (signal.SIGSEGV, 70, "error: The engine broke down with trainer.batch_size=8 (SIGSEGV; it held 0."),
        (signal.SIGABRT, 70, "error: The engine broke down with trainer.batch_size=8 (SIGABRT; it held 0."),
        (signal.SIGKILL, 137, "error: Killed from outside with trainer.batch_size=8 (SIGKILL; it held 0."),
    ],
)
def test_an_end_without_a_word_is_told_with_the_way_out_and_on(number, status, begins):
    found, told = end_of(f"os.kill(os.getpid(), {int(number)})")
    assert found == status
    assert told.startswith(begins)
    assert "for lack of memory" in told
    assert "trainer.batch_size=4 trainer.accumulate=2" in told
    assert told.endswith("voxlift-train resume=runs/x")


def test_a_signal_from_outside_is_passed_on_and_tells_how_to_go_on():
    child = start("time.sleep(600)")
    assert int(child.stdout.readline()) != child.pid
    child.terminate()
    _, told = child.communicate()
    assert child.returncode == 128 + signal.SIGTERM
    assert told.strip().startswith(
        "error: Ended from outside by SIGTERM. To go on from the newest checkpoint"
    )
    assert told.strip().endswith("voxlift-train resume=runs/x")


def test_an_interruption_comes_once_though_two_processes_get_it():
    child = start(
        """
try:
    print("within reach", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    time.sleep(0.5)  # in which the one that was passed on comes
    sys.exit(130)
"""
    )
    inner = int(child.stdout.readline())
    assert child.stdout.readline() == "within reach\n"
    os.kill(inner, signal.SIGINT)
    child.send_signal(signal.SIGINT)
    _, told = child.communicate()
    assert (child.returncode, told) == (130, "")


def test_a_command_ends_with_the_process_that_waits_for_it():
    child = start("time.sleep(600)")
    child.stdout.readline()
    child.kill()
    child.communicate()  # returns when nobody holds the other end of its output any more


def test_a_debugger_finds_one_process():
    child = start("", "debug=true")
    assert int(child.stdout.readline()) == child.pid
    child.communicate()


def test_what_the_system_ended_for_lack_of_memory_is_the_users_to_mend(tmp_path):
    end = End(signal.SIGKILL, 21_300_000_000, is_memory=True, facts={"doing": "trainer.batch_size=8"})
    assert end.status == 2
    assert end.spoken() == (
        "Out of memory with trainer.batch_size=8: the system ended the process (SIGKILL; it held 21.3 GB)."
    )
    (tmp_path / "vmstat").write_text("pgpgin 12\noom_kill 3\n")
    assert _memory_kills(tmp_path / "vmstat") == 3
    assert _memory_kills(tmp_path / "none") == 0


def test_without_a_supervising_process_nobody_is_told():
    announce(training_need(TrainerSettings()), way_on(Path("runs/x")))
