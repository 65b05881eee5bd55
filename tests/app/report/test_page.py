"""A page is whole or as before: a full disk leaves no half of one."""

import errno
import os
from types import SimpleNamespace

import pytest

from voxlift.app.report import html as page
from voxlift.app.report.html import write_page


def test_a_full_disk_leaves_the_page_that_was_there_and_names_it(tmp_path, monkeypatch):
    template = SimpleNamespace(render=lambda values: f"<p>{values}</p>")
    monkeypatch.setattr(page, "Environment", lambda **_: SimpleNamespace(get_template=lambda _: template))
    target = tmp_path / "report.html"
    assert write_page("run.html.j2", target, {"day": 1}) == target

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*report\.html'"):
        write_page("run.html.j2", target, {"day": 2})
    assert target.read_text(encoding="utf-8") == "<p>{'day': 1}</p>"
    assert list(tmp_path.iterdir()) == [target]
