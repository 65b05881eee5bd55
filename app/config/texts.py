r"""Keep text as it was typed, on its way through Hydra's grammar, OmegaConf and YAML.

Hydra reads `true`, `1.10` and `null` as values; OmegaConf takes `${AD}` for an interpolation and `???` for a
missing value; a class may have any of these names. Text that OmegaConf would take for something else gets a
backslash before it (`\${AD}`, `\???`), which is removed when settings are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf._utils import get_omega_conf_dumper

Settings = TypeVar("Settings")

CLASS_KEYS = ("data.classes", "explain_class")  # nothing but text, whatever it looks like
COLUMN_KEYS = (  # text, or an interpolation
    "data.image_column",
    "data.image_columns",
    "data.label_column",
    "data.label_columns",
    "data.subject_column",
    "data.split_column",
    "data.mask_column",
    "model.columns",
    "image_columns",  # of voxlift-predict
    "subject_column",
    "mask_column",
)
LIST_KEYS = ("data.classes", "data.image_columns", "data.label_columns", "model.columns", "image_columns")
_INTERPOLATION = re.compile(r"(\\*)\$\{")
_MISSING = re.compile(r"\\*\?\?\?")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", re.DOTALL)
_YAML_LINE_ENDS = ("\x85", "\u2028", "\u2029")  # written as they are, YAML reads them as line ends


def protect(text: str) -> str:
    r"""Return a text in the form that OmegaConf takes for this text and nothing else.

    >>> print(protect("${AD}"), protect("???"), protect("AD"))
    \${AD} \??? AD
    """
    if _MISSING.fullmatch(text):
        return f"\\{text}"
    return _INTERPOLATION.sub(lambda found: f"{found[1] * 2}\\${{", text)


def restore(text: str) -> str:
    """Return the text of a value that OmegaConf has resolved, without the backslash before `???`."""
    return text[1:] if text.startswith("\\") and _MISSING.fullmatch(text) else text


def restore_settings(settings: Settings) -> Settings:
    """Return settings that OmegaConf has resolved with every text restored."""
    result: Settings = _map_texts(settings, restore)
    return result


def dump_settings(settings: object) -> str:
    """Return settings as YAML which OmegaConf reads back as they are.

    Args:
        settings: A dataclass, or a mapping.
    """
    protected = _map_texts(settings, protect)
    config = OmegaConf.structured(protected) if is_dataclass(settings) else OmegaConf.create(protected)
    text: str = OmegaConf.to_yaml(config)
    if not any(mark in text for mark in _YAML_LINE_ENDS):
        return text
    content = OmegaConf.to_container(config, resolve=False, enum_to_str=True)
    dumped: str = yaml.dump(content, Dumper=get_omega_conf_dumper(), allow_unicode=False, sort_keys=False)
    return dumped


def quote_text(text: str) -> str:
    """Return a text quoted for Hydra's grammar; OmegaConf still resolves interpolations in it."""
    return str(QuotedString(text, Quote.double).with_quotes())


def quote_argument(argument: str) -> str:
    """Return an argument of the command line, quoted where Hydra would change the name of a class or column.

    Sweeps, and arguments of other keys, stay as they are.

    >>> print(quote_argument("data.classes=[true, a[1], 'x, y']"))
    data.classes=["true","a[1]","x, y"]
    >>> print(quote_argument("data.label_column=1.10"), quote_argument("data.classes=[AD,0]"))
    data.label_column="1.10" data.classes=[AD,0]
    >>> print(quote_argument("image_columns=[{id}/{id}_T1w.nii.gz]"))
    image_columns=["{id}/{id}_T1w.nii.gz"]

    Args:
        argument: In Hydra's grammar, or with names that are not.
    """
    prefixed, separator, value = argument.partition("=")
    key, value = prefixed.lstrip("+"), value.strip()
    if not separator or key not in (*CLASS_KEYS, *COLUMN_KEYS) or value in ("", "null"):
        return argument
    if key in LIST_KEYS:
        items = _split_list(value)
    else:
        items = [value] if "," not in value or _QUOTED.fullmatch(value) else []
    texts = [_parse(item) if _QUOTED.fullmatch(item) else item for item in items]
    forms = [
        _protect_name(text, key, is_quoted=bool(_QUOTED.fullmatch(item)))
        for text, item in zip(texts, items, strict=True)
    ]
    parsed = _parse(value)
    if not items or (forms == texts and _is_read_as(texts, parsed if key in LIST_KEYS else [parsed])):
        return argument
    quoted = ",".join(map(quote_text, forms))
    return f"{prefixed}=[{quoted}]" if key in LIST_KEYS else f"{prefixed}={quoted}"


def _protect_name(text: str, key: str, *, is_quoted: bool) -> str:
    """Return a name protected; in quotes it may be so already, as on the command line of a child."""
    if key in COLUMN_KEYS and "${" in text:
        return text
    if not is_quoted or text == "???":
        return protect(text)
    return _INTERPOLATION.sub(lambda found: found[0] if len(found[1]) % 2 else f"{found[1]}\\${{", text)


def _parse(value: str) -> Any:  # noqa: ANN401 - whatever Hydra makes of it
    """Return what Hydra reads; None where it cannot."""
    try:
        return OverridesParser.create().parse_override(f"key={value}").value()
    except HydraException:
        return None


def _is_read_as(texts: list[str], parsed: object) -> bool:
    """Return whether OmegaConf makes these texts of what Hydra has read, or Hydra has read other texts."""
    if not isinstance(parsed, list):
        return False
    return all(isinstance(value, str) for value in parsed) or list(map(str, parsed)) == texts


def _split_list(value: str) -> list[str]:
    """Return the items of `[a,b]`; none where the value is something else, or an item is empty.

    A comma in quotes or in brackets is part of its item, if all brackets are closed.
    """
    if len(value) < 2 or not (value[0] == "[" and value[-1] == "]"):
        return []
    pieces = list(_pieces(value[1:-1]))
    depths = [0]
    for piece in pieces:
        depths.append(depths[-1] + (piece in "([{") - (piece in ")]}"))
    if min(depths) < 0 and _is_sweep(pieces):
        return []
    is_balanced = min(depths) == depths[-1] == 0
    items = [""]
    for piece, depth in zip(pieces, depths, strict=False):
        if piece == "," and (depth == 0 or not is_balanced):
            items.append("")
        else:
            items[-1] += piece
    stripped = [item.strip() for item in items]
    return stripped if all(stripped) else []


def _pieces(text: str) -> Iterator[str]:
    """Yield quoted items as one, and all other characters."""
    at, begins_item = 0, True
    while at < len(text):
        quoted = _QUOTED.match(text, at) if begins_item else None
        is_item = quoted is not None and text[quoted.end() :].lstrip()[:1] in ("", ",", "]")
        piece = quoted[0] if quoted is not None and is_item else text[at]
        yield piece
        at += len(piece)
        begins_item = piece == "," or (begins_item and piece.isspace())


def _is_sweep(pieces: list[str]) -> bool:
    """Return whether a list is followed by another one, as in `[a,b],[c,d]`."""
    return "],[" in "".join(piece for piece in pieces if not piece.isspace())


def _map_texts(node: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401 - whatever settings hold
    """Return a copy of dataclasses, lists and mappings with every text changed."""
    if isinstance(node, str):
        return change(node)
    if isinstance(node, Mapping):
        return {key: _map_texts(value, change) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(_map_texts(value, change) for value in node)
    if is_dataclass(node) and not isinstance(node, type):
        return replace(
            node, **{one.name: _map_texts(getattr(node, one.name), change) for one in fields(node)}
        )
    return node
