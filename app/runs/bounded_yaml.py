"""Read YAML that others may have written: small, flat, and without references of any kind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

MAX_BYTES = 2**20
MAX_NODES = 20_000
MAX_DEPTH = 40
INTERPOLATION = re.compile(r"(?<!\\)(?:\\\\)*\$\{")  # `\${` is text
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_yaml(file: Path) -> Any:  # noqa: ANN401 - a configuration of OmegaConf
    """Return a YAML file as a configuration of OmegaConf.

    Aliases, interpolations and depth can make a short file endless to read; Voxlift writes none of them.

    Raises:
        ValueError: The file is too large or too deep, or holds an alias or an interpolation.
        OSError, yaml.YAMLError, OmegaConfBaseException: It cannot be read, or is no YAML.
    """
    if file.exists() and not file.is_file():
        raise ValueError("it is no regular file")
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes")
    text = file.read_text(encoding="utf-8")
    problem = next(_find_problems(text), None)
    if problem:
        raise ValueError(problem)
    return OmegaConf.create(text)


def _find_problems(text: str) -> Iterator[str]:
    """Yield a sentence for whatever would take long to read, in the order of the text."""
    nodes = depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            yield f"line {line} has the alias *{event.anchor}; write its value instead"
        if isinstance(event, yaml.ScalarEvent) and INTERPOLATION.search(event.value):
            yield f"line {line} has an interpolation, ${{...}}; write its value instead"
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        nodes += isinstance(event, yaml.NodeEvent)
        if depth > MAX_DEPTH:
            yield f"line {line} has more than {MAX_DEPTH} levels"
        if nodes > MAX_NODES:
            yield f"it has more than {MAX_NODES} values"
