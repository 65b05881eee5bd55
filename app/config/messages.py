"""What went wrong, told in the user's words instead of the machinery's."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from voxlift.app.config.suggestions import suggest, suggest_key
from voxlift.app.errors import MendableError
from voxlift.data_pipelines.errors import DataError

MERGING = "Error merging override "  # Hydra's words before the override whose value does not fit its key
AMBIGUOUS = "Ambiguous value for argument"  # and before several values without brackets
EXPECTED = {  # what OmegaConf says then, and what was expected
    "converted to Integer": "a whole number",
    "converted to Float": "a number",
    "is not a valid bool": "true or false",
    "is not Optional": "a value",
    "is not a ListConfig": "a list",
    "Cannot assign": "a group of keys, each set by itself",
    "is not a subclass": "a group of keys, each set by itself",
}
REFUSED = {  # why a file or folder could not be used, and what helps
    errno.ENOTDIR: "a file stands where a folder is expected; choose another place",
    errno.EISDIR: "a folder stands where a file is expected; choose another name",
    errno.ENOENT: "there is no such file or folder; make the folder first, or mend the path",
    errno.EACCES: "it may not be read or written by you; change its permissions, or choose another place",
    errno.EPERM: "it may not be read or written by you; change its permissions, or choose another place",
    errno.EROFS: "the disk can only be read; choose another place",
    errno.ENOSPC: "no space is left on its disk; make room there",
}


def explain(error: BaseException, *, command: str = "train") -> str:
    """The error as one or two sentences for the terminal, without the machinery's vocabulary.

    Args:
        error: What went wrong.
        command: Whose keys the user may have meant.
    """
    if isinstance(error, OverrideParseException):
        return explain_grammar(error.override, sys.argv[1:], command)
    if isinstance(error, MissingConfigException):
        return _explain_choice(error)
    text = str(error).strip()
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _explain_key(text, error, command)
    if isinstance(error, OSError) and error.filename is not None:
        return _explain_file(error)
    return text


def _explain_file(error: OSError) -> str:
    """What befell a file or folder, and what helps."""
    said = REFUSED.get(error.errno or 0)
    return f"{error.filename}: {said or error.strerror}."


def _explain_choice(error: MissingConfigException) -> str:
    options = [option for option in error.options or () if not option.endswith("_schema")]
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if not options:
        return str(error).split("\n", maxsplit=1)[0]
    return f"{group}={name} is not known.{suggest(name, options)} Expected one of: {', '.join(options)}."


def _explain_key(text: str, error: BaseException, command: str) -> str:
    """Hydra's `Could not override 'a.b'` chain, with the nearest key that exists."""
    cause = str(error.__cause__).split("\n", maxsplit=1)[0] if error.__cause__ else ""
    first = text.split("\n", maxsplit=1)[0]
    quoted = text.split("'")
    key = quoted[1] if first.startswith("Could not override") and len(quoted) > 1 else ""
    if key and ("not in" in text + cause):
        return f"unknown key {key}.{suggest_key(key, command, sys.argv[1:])} See --help for every key."
    if first.startswith(AMBIGUOUS) and len(quoted) > 1:
        return list_or_sweep(quoted[1])
    if first.startswith(MERGING):
        return _explain_value(first.removeprefix(MERGING), cause)
    lines = [
        line.strip()
        for line in text.splitlines()
        if "object_type" not in line and "reference_type" not in line
    ]
    return " ".join([*lines, cause]).strip()


def _explain_value(override: str, cause: str) -> str:
    """What a key expects, for a value of another kind."""
    key, _, value = override.partition("=")
    key = key.lstrip("+")
    expected = next((words for mark, words in EXPECTED.items() if mark in cause), None)
    if expected is None:
        return f"{key}: {cause}."
    way_out = f" Write '{key}=[{value}]'." if expected == "a list" else ""
    return f"{key}: expected {expected}; received {value}.{way_out}"


def is_user_error(error: BaseException) -> bool:
    """Whether the user can mend the cause: our own errors, a wrong configuration, an unusable file."""
    mendable = (MendableError, DataError, HydraException, OmegaConfBaseException, OSError)
    return isinstance(error, (*mendable, *_lift_errors()))


def _lift_errors() -> tuple[type[Exception], ...]:
    """The lift's own error, where its room was entered: to import it would bring Keras in."""
    room = sys.modules.get("voxlift.models.lifting.errors")
    return () if room is None else (room.LiftError,)


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
