"""Whoever lacks a package is told of an extra that there is, in the one way of saying so."""

import re
import tomllib
from pathlib import Path

from voxlift.app.errors import install_extra

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]


def test_every_extra_that_is_named_exists_and_is_told_in_one_way():
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "app").rglob("*.py")}
    named = {name for text in sources.values() for name in re.findall(r"install_extra\('(\w+)'\)", text)}
    assert {"gpu", "mlflow", "onnx", "search"} <= named <= set(EXTRAS)
    telling = {path.name for path, text in sources.items() if "pip install" in text}
    assert telling <= {"errors.py", "viewer.py"}


def test_readme_and_pages_name_extras_as_the_messages_do():
    pages = [ROOT / "README.md", *(ROOT / "conf").rglob("*.yaml"), *(ROOT / "app").rglob("*.py")]
    said = {
        found
        for path in pages
        for found in re.findall(r"pip install '[^']*'", path.read_text(encoding="utf-8"))
    } - {"pip install 'voxlift[{extra}]'"}
    assert said <= {re.search(r"pip install '.*'", install_extra(extra))[0] for extra in EXTRAS}
