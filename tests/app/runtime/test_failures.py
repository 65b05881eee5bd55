"""Lack of memory, a full disk, signals and crashes are distinguished, and each ends in a message."""

import errno
import importlib
import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from commands import call_command
from voxlift.app.config.messages import describe_error
from voxlift.app.errors import UserError
from voxlift.app.runtime.failures import (
    MemoryHint,
    ProcessEnd,
    _count_memory_kills,
    is_disk_full,
    is_out_of_memory,
    send_hints,
    translate_failures,
)


class ResourceExhaustedError(Exception):
    """Named as TensorFlow's."""


MEMORY = (
    MemoryError(),
    ResourceExhaustedError("OOM when allocating tensor with shape[8,96]"),
    RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes."),
    RuntimeError("Unable to allocate 3. GiB for an array"),
    "terminate called after throwing an instance of 'std::bad_alloc'",
    "numpy.core._exceptions._ArrayMemoryError: Unable to allocate 3. GiB",
    OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
)
DISK = (
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.npz"),
    OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
    ResourceExhaustedError("a/events; No space left on device"),
)
OTHER = (ValueError("x"), OSError(errno.EIO, os.strerror(errno.EIO)), "ran out of patience")


def test_each_error_is_one_of_memory_disk_and_other():
    for errors, expected in ((MEMORY, (True, False)), (DISK, (False, True)), (OTHER, (False, False))):
        for error in errors:
            assert (is_out_of_memory(error), is_disk_full(error)) == expected, error


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def test_a_full_disk_names_the_file_and_how_to_resume():
    for number in FULL:
        with (
            pytest.raises(UserError) as caught,
            translate_failures(MemoryHint("", ""), "voxlift-train resume=r"),
        ):
            raise OSError(number, os.strerror(number), "r/model.keras")
        assert "r/model.keras" in str(caught.value)
        assert str(caught.value).endswith("resume=r")


def test_a_full_disk_without_a_run_to_resume_names_the_file_and_the_same_command():
    for number in FULL:
        error = OSError(number, os.strerror(number), "r/evaluation-test.json")
        with pytest.raises(UserError) as caught, translate_failures(MemoryHint("", "")):
            raise error
        for message in (str(caught.value), describe_error(error, command="evaluate")):
            assert "r/evaluation-test.json" in message
            assert "same command" in message


@pytest.mark.parametrize("command", ["evaluate", "audit"])
def test_a_disk_that_fills_where_no_run_begins_ends_a_command_with_2(command, tmp_path, monkeypatch, capsys):
    def fill(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "full.json")

    module = importlib.import_module(f"voxlift.app.cli.{command}")
    monkeypatch.setattr(module, command, fill)
    asked = {"evaluate": [f"run={tmp_path}"], "audit": ["data=phantom"]}[command]
    assert call_command(command, *asked) == 2
    message = capsys.readouterr().err
    assert "full.json" in message
    assert "same command" in message
    assert "Traceback" not in message


@pytest.mark.parametrize("command", ["audit", "train"])
def test_a_table_that_is_a_zip_bomb_ends_a_command_with_2(command, tmp_path, capsys):
    table = tmp_path / "t.xlsx"
    with zipfile.ZipFile(table, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("xl/workbook.xml", "<workbook/>")
        file.writestr("xl/worksheets/sheet1.xml", "<row/>" * (5 * 2**20))
    own = f"output={tmp_path / 'page'}" if command == "audit" else f"run_dir={tmp_path / 'run'}"
    assert call_command(command, "data=manifest", f"data.table={table}", own) == 2
    message = capsys.readouterr().err
    assert str(table) in message
    assert "Traceback" not in message
    assert [path.name for path in tmp_path.iterdir()] == ["t.xlsx"]


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
