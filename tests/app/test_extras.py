"""Messages, pages and the README name only extras that exist, and install them in the same way."""

import re
import tomllib
from pathlib import Path

from voxlift.app.errors import install_extra

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]


def test_every_named_extra_exists_and_is_installed_by_the_same_command():
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "app").rglob("*.py")}
    named = {name for text in sources.values() for name in re.findall(r"install_extra\('(\w+)'\)", text)}
    assert {"gpu", "mlflow", "onnx", "search"} <= named <= set(EXTRAS)
    with_command = {path.name for path, text in sources.items() if "pip install" in text}
    assert with_command <= {"errors.py", "viewer.py"}


def test_readme_and_pages_name_extras_as_the_messages_do():
    pages = [ROOT / "README.md", *(ROOT / "conf").rglob("*.yaml"), *(ROOT / "app").rglob("*.py")]
    commands = {
        command
        for path in pages
        for command in re.findall(r"pip install '[^']*'", path.read_text(encoding="utf-8"))
    } - {"pip install 'voxlift[{extra}]'"}
    assert commands <= {re.search(r"pip install '.*'", install_extra(extra))[0] for extra in EXTRAS}
