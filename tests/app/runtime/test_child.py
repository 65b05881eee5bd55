"""A child process: its exit status, the reason of a failure, its time limit, its import path."""

import sys
import time

import pytest

from voxlift.app.runtime.child import python_module, run_child
from voxlift.app.runtime.exit_status import CRASH, TIMED_OUT


def run_code(code, **options):
    return run_child([sys.executable, "-c", code], **options)


def test_the_status_of_a_child_comes_with_the_reason_of_its_failure(tmp_path):
    log = tmp_path / "log.txt"
    assert run_code("print('x')", log=log) == (0, "")
    failing = "import sys; sys.stderr.write('first\\nerror: last\\n\\n'); sys.exit(2)"
    assert run_code(failing, log=log) == (2, "last")
    assert log.read_text(encoding="utf-8").split() == ["first", "error:", "last"]
    status, reason = run_code("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert status == CRASH
    assert "SIGKILL" in reason


def test_an_interrupted_child_interrupts():
    with pytest.raises(KeyboardInterrupt):
        run_code("import os, signal; signal.signal(2, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGINT)")


def test_a_child_is_killed_at_its_time_limit():
    started = time.monotonic()
    status, reason = run_code("import time; time.sleep(60)", seconds=0.3)
    assert status == TIMED_OUT
    assert "0.3 s" in reason
    assert time.monotonic() - started < 30
    assert run_code("pass", seconds=60) == (0, "")


def test_modules_in_the_working_directory_are_not_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token.py").write_text(
        "raise AssertionError\n"
    )  # of the standard library, which tokenize imports
    (tmp_path / "code.txt").write_text("x = 1\n")
    assert run_child(python_module("tokenize", "code.txt"), log=tmp_path / "log.txt") == (0, "")
