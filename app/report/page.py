"""A template, filled and written as one self-contained file."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from voxlift.app.files import write_beside


def write_page(template: str, path: Path, values: Mapping[str, Any]) -> Path:
    """Write a page (UTF-8, no script, nothing loaded from elsewhere), whole or not at all; its path.

    Raises:
        OSError: naming the path, such as on a full disk.
    """
    environment = Environment(
        loader=PackageLoader("voxlift.app.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(values).encode()
    write_beside(path, lambda file: file.write(page))
    return path


def now() -> str:
    """The time that stands on a page, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M")
