"""Words of a command line that the shell or the grammar of settings tore apart, and how to write them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

PLAIN = re.compile(r"[\w.+/@%:?|*-]+")  # an item of a list that needs no quotes of its own
TAKING_VALUES = ("cfg", "package", "config-path", "config-name", "config-dir", "experimental-rerun", "info")
PATHS_BELONG_TO: Mapping[str, str] = MappingProxyType(
    {
        "audit": "data=manifest data.table",
        "train": "data=manifest data.table",
        "compare": "data=manifest data.table",
        "study": "data=manifest data.table",
        "evaluate": "run",
        "export": "run",
        "predict": "input",
        "lift": "network",
    }
)


def explain_grammar(word: str, words: Sequence[str], command: str) -> str:
    """What is wrong with a word that is no setting, and how it is written.

    Args:
        word: Where the grammar stopped.
        words: The whole command line, without the command.
        command: Whose words they are.

    >>> explain_grammar("Name", ["data.image_column=File", "Name"], "audit")
    "Name: expected key=value. It seems torn from the word before it; write 'data.image_column=File Name'."
    >>> explain_grammar("data.classes=[left,", ["data.classes=[left,", "right]"], "train")
    "data.classes=[left,: the shell has cut this value at a space. Write 'data.classes=[left,right]'."
    """
    key, separator, value = word.partition("=")
    if not separator:
        return f"{word}: expected key=value. {_place(word, words, command)}"
    if value.startswith("[") and not value.rstrip().endswith("]"):
        return _explain_torn_list(word, words)
    if value.startswith("[") and not {'"', "'"} & set(value):
        items = ",".join(map(_quoted, value.strip()[1:-1].split(",")))
        return f"{word}: this value needs quotes. Write it as '{key}=[{items}]'."
    return f"{word}: this value needs quotes. Write it as '{key}=\"{value}\"' (both kinds of quotes)."


def list_or_sweep(word: str) -> str:
    """Several values without brackets, which may be a list or a sweep.

    >>> list_or_sweep("seeds=0,1")
    "seeds=0,1: several values. A list is written 'seeds=[0,1]'; one job for each value, -m seeds=0,1."
    """
    key, _, values = word.partition("=")
    return f"{word}: several values. A list is written '{key}=[{values}]'; one job for each value, -m {word}."


def is_dashed(word: str, keys: Collection[str]) -> bool:
    """Whether a word is a setting written as an option, and none of Hydra's own.

    >>> [is_dashed(word, ["run"]) for word in ("--run", "--data.table", "--epochs=3", "--cfg=job", "--help")]
    [True, True, True, False, False]
    """
    name, separator, _ = word.removeprefix("--").partition("=")
    is_setting = name in keys or "." in name or (bool(separator) and name not in TAKING_VALUES)
    return word.startswith("--") and is_setting


def explain_dashes(word: str) -> str:
    """A setting written as an option.

    >>> explain_dashes("--data.table=labels.csv")
    '--data.table=labels.csv: settings are written without dashes, as key=value: data.table=labels.csv.'
    """
    key, _, value = word.lstrip("-").partition("=")
    return f"{word}: settings are written without dashes, as key=value: {key}={value or 'VALUE'}."


def _place(word: str, words: Sequence[str], command: str) -> str:
    """Where a word without a key belongs: to the one before it, or to the key of a path."""
    at = words.index(word) if word in words else 0
    before = words[at - 1] if at else ""
    key = PATHS_BELONG_TO.get(command)
    if key and Path(word).expanduser().exists():
        return f"Write {key}={_shell_quoted(word)}."
    if "=" in before and not before.endswith("="):
        return f"It seems torn from the word before it; write '{before} {word}'."
    return "See --help for the keys."


def _explain_torn_list(word: str, words: Sequence[str]) -> str:
    rest = words[words.index(word) + 1 :] if word in words else ()
    ends = [number for number, part in enumerate(rest) if part.rstrip().endswith("]")]
    if not ends or any("=" in part for part in rest[: ends[0] + 1]):
        return f"{word}: the list does not end. Write '{word.rstrip(', ')}]'."
    joined = "".join([word, *rest[: ends[0] + 1]])
    return f"{word}: the shell has cut this value at a space. Write '{joined}'."


def _quoted(item: str) -> str:
    """An item of a list, in quotes if the grammar needs them.

    >>> _quoted(" sex"), _quoted("Age (y)"), _quoted('"Age (y)"')
    ('sex', '"Age (y)"', '"Age (y)"')
    """
    item = item.strip()
    return item if PLAIN.fullmatch(item) or item[:1] in {'"', "'"} else f'"{item}"'


def _shell_quoted(word: str) -> str:
    return f"'{word}'" if " " in word else word
