"""Render a template of this package as one self-contained HTML file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from voxlift.app.files import write_text
from voxlift.data_pipelines.files import escape_name


def write_page(template: str, path: Path, values: Mapping[str, Any]) -> Path:
    """Write a page atomically and return its path; UTF-8, no script, no external resources.

    Args:
        template: File name in `templates/`.
        path: Where the page is written.
        values: Everything that the template needs.

    Raises:
        OSError: Names the path, as on a full disk.
    """
    environment = Environment(
        loader=PackageLoader("voxlift.app.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    write_text(path, escape_name(environment.get_template(template).render(values)))
    return path


def timestamp() -> str:
    """Return the local time to the minute, as it is printed on a page."""
    return time.strftime("%Y-%m-%d %H:%M")
