"""The log file has every message from the start; the logger is restored afterwards."""

import logging
from pathlib import Path

import pytest

from voxlift.app.runtime.logs import logging_to_file

LOG = logging.getLogger("voxlift")


def test_messages_before_the_file_was_named_are_in_it_too(tmp_path, capsys):
    with logging_to_file() as attach:
        LOG.info("first")
        attach(tmp_path / "log.txt")
        LOG.info("second")
    written = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split()[-1] for line in written] == ["first", "second"]
    assert capsys.readouterr().out == "first\nsecond\n"


def test_the_logger_is_restored_however_the_block_ends(monkeypatch):
    monkeypatch.setattr(LOG, "propagate", True)
    level, handlers = LOG.level, list(LOG.handlers)
    with pytest.raises(KeyError), logging_to_file():
        raise KeyError
    assert (LOG.level, LOG.propagate, LOG.handlers) == (level, True, handlers)


def test_a_log_on_a_full_disk_ends_once_and_the_messages_are_still_printed(capsys):
    with logging_to_file() as attach:
        attach(Path("/dev/full"))
        for word in ("first", "second"):
            LOG.info(word)
    printed, errors = capsys.readouterr()
    assert errors == ""
    assert printed.count("/dev/full") == 1
    assert [line for line in printed.splitlines() if "/dev/full" not in line] == ["first", "second"]
