"""A template, filled and written as one self-contained file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def write_page(template: str, path: Path, values: Mapping[str, Any]) -> Path:
    """Write a page (UTF-8, no script, nothing loaded from elsewhere) and return its path."""
    environment = Environment(
        loader=PackageLoader("app.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    path.write_text(environment.get_template(template).render(values), encoding="utf-8")
    return path
