"""What a command says goes into its log from its first word; the logger is as it was afterwards."""

import logging

import pytest

from voxlift.app.runtime.logs import logging_to_file

LOG = logging.getLogger("voxlift")


def test_what_was_said_before_the_file_was_named_is_in_it_too(tmp_path, capsys):
    with logging_to_file() as attach:
        LOG.info("first")
        attach(tmp_path / "log.txt")
        LOG.info("second")
    written = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split()[-1] for line in written] == ["first", "second"]
    assert capsys.readouterr().out == "first\nsecond\n"


def test_the_logger_is_left_as_it_was_however_it_ends(monkeypatch):
    monkeypatch.setattr(LOG, "propagate", True)
    level, handlers = LOG.level, list(LOG.handlers)
    with pytest.raises(KeyError), logging_to_file():
        raise KeyError
    assert (LOG.level, LOG.propagate, LOG.handlers) == (level, True, handlers)
