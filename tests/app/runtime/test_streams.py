"""A command runs to its end and its exit status is that of its work, whoever reads its output."""

import os
import subprocess
import sys

import pytest

from commands import own_environment

STREAMS = "from voxlift.app.runtime.streams import prepare_streams; prepare_streams()\n"
PRINT = f"{STREAMS}import os, sys\nfor _ in range(9999): print('line')\nsys.stdout.flush()\n"
COMMAND = """
import sys
from voxlift.app.cli.command import run_command
from voxlift.app.progress import print_line
def job(_):
    for _ in range(9999): print_line("line")
    return 1
sys.argv[1:] = []
run_command("audit", read=str, job=job, is_supervised=True)
"""
REDIRECTIONS = (">&-", "2>&-", "<&- >&- 2>&-", "| true", "2>&1 | true", "| head -n 1")


def run_in_shell(code, redirection):
    """Return the exit status of Python code and its standard error, with its streams redirected by bash."""
    script = f'"$0" -c "$1" {redirection}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["/bin/bash", "-c", script, sys.executable, code], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("redirection", REDIRECTIONS)
def test_the_status_is_that_of_the_work_without_a_reader(redirection):
    assert run_in_shell(COMMAND, redirection) == (1, "")


def test_a_full_disk_below_standard_output_is_named():
    status, message = run_in_shell(COMMAND, ">/dev/full")
    assert status == 2
    assert "standard output" in message
    assert "Traceback" not in message


COMMANDS = ("audit", "compare", "evaluate", "export", "lift", "predict", "study", "train")
PRINTED = ("--version", "--cfg job", "--hydra-help")


FORKS = """
import importlib, os, sys
for line in sys.stdin:
    name, target, *arguments = line.split()
    if not os.fork():
        os.dup2(os.open(target, os.O_WRONLY), 1) if target != "closed" else os.close(1)
        sys.argv = ["x", *arguments]
        importlib.import_module(f"voxlift.app.cli.{name}").main()
    _, status = os.wait()
    print(line.strip(), os.waitstatus_to_exitcode(status), file=sys.stderr)
"""


def test_the_status_of_what_is_only_printed_is_that_of_the_printing():
    """2 on a full disk, 0 without a reader; in forks of one process, which imports Hydra once."""
    assert_statuses(["audit /dev/full --help", "train /dev/full --cfg job", "lift closed --help"])


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_the_status_of_what_any_command_only_prints_is_that_of_the_printing(name):
    """In a process for each command: after 30 s of silence a command would write that it is at work."""
    options = ("--help", *(PRINTED if name == "train" else ()))
    assert_statuses([f"{name} {target} {one}" for one in options for target in ("/dev/full", "closed")])


def assert_statuses(lines):
    """Run commands, each `NAME TARGET OPTION`, and assert that they end as their output does."""
    done = subprocess.run(
        [sys.executable, "-c", "import voxlift.app.cli.command" + FORKS],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=False,
        env=own_environment(),
    )
    ends = [line for line in done.stderr.splitlines() if line[-1:].isdigit()]
    assert ends == [f"{line} {2 if '/dev/full' in line else 0}" for line in lines]
    assert done.stderr.count("standard output") == sum("/dev/full" in line for line in lines)
    assert "Traceback" not in done.stderr


def test_work_goes_on_after_the_reader_has_left():
    code = f"{PRINT}os.system('echo from a child; exit 3')\nsys.exit(4)"
    assert run_in_shell(code, "| true") == (4, "")


def test_a_file_that_is_opened_later_does_not_become_standard_output(tmp_path):
    target = tmp_path / "result.txt"
    code = f"{STREAMS}file = open({str(target)!r}, 'w'); print('line'); file.write('result')"
    assert run_in_shell(code, "<&- >&- 2>&-")[0] == 0
    assert target.read_text() == "result"


def test_a_terminal_that_was_closed_is_a_reader_that_has_left():
    ours, theirs = os.openpty()
    code = f"{STREAMS}import sys; sys.stdin.readline(); print('line'); sys.exit(5)"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=theirs)
    os.close(theirs)
    os.close(ours)
    child.communicate(b"\n")
    assert child.returncode == 5


def test_characters_that_an_encoding_lacks_are_escaped():
    code = f"{STREAMS}print('\\u00fc \\udcfc')"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "\\xfc \\udcfc\n")
