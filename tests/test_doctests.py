"""The examples in docstrings say what is true."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = [
    ".".join(("voxlift", *path.relative_to(ROOT).with_suffix("").parts))
    for floor in ("app", "data_pipelines", "models")
    for path in sorted((ROOT / floor).rglob("*.py"))
    if ">>>" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
