"""Out-of-memory and disk-full errors are recognised in the words of every library, and kept apart."""

import errno
import importlib
import os
import zipfile

import pytest

from commands import call_command
from voxlift.app.config.messages import describe_error
from voxlift.app.errors import UserError
from voxlift.app.runtime.failures import MemoryHint, is_disk_full, is_out_of_memory, translate_failures


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
