"""What went wrong, told in the user's words instead of the machinery's."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


def explain(error: BaseException) -> str:
    """The error as one or two sentences for the terminal, without the machinery's vocabulary."""
    if isinstance(error, OverrideParseException):
        return _explain_grammar(error)
    if isinstance(error, MissingConfigException):
        return _explain_choice(error)
    text = str(error).strip()
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _explain_key(text, error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    return text


def _explain_grammar(error: OverrideParseException) -> str:
    key, separator, value = error.override.partition("=")
    if not separator:
        return f"{error.override}: expected key=value. See --help for the keys."
    return (
        f"{error.override}: this value needs quotes. Write it as '{key}=\"{value}\"' (both kinds of quotes)."
    )


def _explain_choice(error: MissingConfigException) -> str:
    options = [option for option in error.options or () if not option.endswith("_schema")]
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if not options:
        return str(error).split("\n", maxsplit=1)[0]
    return f"{group}={name} is not known.{_nearest(name, options)} Expected one of: {', '.join(options)}."


def _explain_key(text: str, error: BaseException) -> str:
    """Hydra's `Could not override 'a.b'` chain, with the nearest key that exists."""
    cause = str(error.__cause__).split("\n", maxsplit=1)[0] if error.__cause__ else ""
    first = text.split("\n", maxsplit=1)[0]
    quoted = text.split("'")
    key = quoted[1] if first.startswith("Could not override") and len(quoted) > 1 else ""
    if key and ("not in" in text + cause):
        others = [known for known in _schema_keys() if known != key]  # it may be another command's key
        return f"unknown key {key}.{_nearest(key, others)} See --help for every key."
    lines = [
        line.strip()
        for line in text.splitlines()
        if "object_type" not in line and "reference_type" not in line
    ]
    return " ".join([*lines, cause]).strip()


def _schema_keys() -> Iterator[str]:
    from app.settings import (
        AuditSettings,
        CompareSettings,
        EvaluateSettings,
        ExportSettings,
        LiftSettings,
        PredictSettings,
    )

    for schema in (
        CompareSettings,
        EvaluateSettings,
        PredictSettings,
        ExportSettings,
        AuditSettings,
        LiftSettings,
    ):
        yield from _flatten(OmegaConf.structured(schema), "")


def _flatten(node: DictConfig, prefix: str) -> Iterator[str]:
    for key in map(str, node):
        name = f"{prefix}{key!s}"
        yield name
        if not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(node._get_node(key)):  # noqa: SLF001 - no public way to look without resolving
            yield from _flatten(node[key], f"{name}.")


def _nearest(name: str, known: list[str]) -> str:
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {matches[0]}?" if matches else ""
