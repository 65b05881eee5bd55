"""Describe errors to the user without the vocabulary of Hydra and OmegaConf."""

from __future__ import annotations

import errno
import itertools
import re
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from voxlift.app.config.keys import SCHEMA, list_known_keys, suggest, suggest_key
from voxlift.app.config.overrides import quote_text
from voxlift.app.errors import FixableError
from voxlift.data_pipelines.errors import DataError

# How Hydra's messages begin where a value does not fit its key, and where several values have no brackets.
MERGING = "Error merging override "
AMBIGUOUS = "Ambiguous value for argument"
EXPECTED = {  # words of OmegaConf's message, and what was expected
    "converted to Integer": "a whole number",
    "converted to Float": "a number",
    "is not a valid bool": "true or false",
    "is not Optional": "a value",
    "is not a ListConfig": "a list",
    "Cannot assign": "a group of keys; set each key by itself",
    "is not a subclass": "a group of keys; set each key by itself",
}
PERMISSION = "you have no permission to read or write it; change its permissions or choose another path"
FILE_ERRORS = {  # why a file or folder could not be used, and what to do
    errno.ENOTDIR: "expected a folder, found a file; choose another path",
    errno.EISDIR: "expected a file, found a folder; choose another name",
    errno.ENOENT: "there is no such file or folder; check the path, or make the folder first",
    errno.EACCES: PERMISSION,
    errno.EPERM: PERMISSION,
    errno.EROFS: "it is on a read-only file system; choose another path",
    errno.ENOSPC: "no space is left on its disk; free some space there, then start the same command again",
    errno.EDQUOT: "your disk quota is used up; free some space there, then start the same command again",
    errno.EFBIG: "the file-size limit is reached; raise it (ulimit -f), then start the same command again",
}
PLAIN = re.compile(r"[\w.+/@%:?|*-]+")  # an item of a list that needs no quotes of its own
HYDRA_OPTIONS = ("cfg", "package", "config-path", "config-name", "config-dir", "experimental-rerun", "info")
OPTIONS_WITH_VALUE = frozenset(
    (*(f"--{name}" for name in HYDRA_OPTIONS if name != "info"), "-c", "-p", "-cp", "-cn", "-cd")
)
PATH_KEYS: Mapping[str, str] = MappingProxyType(  # the key that a path alone was probably meant for
    {
        "audit": "data=manifest data.table",
        "train": "data=manifest data.table",
        "compare": "data=manifest data.table",
        "study": "data=manifest data.table",
        "evaluate": "run",
        "export": "run",
        "report": "run",
        "predict": "input",
        "lift": "network",
    }
)


def is_user_error(error: BaseException) -> bool:
    """Return whether the user can fix the cause: our own errors, a wrong configuration, an unusable file."""
    fixable = (FixableError, DataError, HydraException, OmegaConfBaseException, OSError)
    # To import the lift's errors would import Keras: without them no lift has failed.
    lifting = sys.modules.get("voxlift.models.lifting.errors")
    return isinstance(error, fixable) or (lifting is not None and isinstance(error, lifting.LiftError))


def describe_error(error: BaseException, *, command: str = "train") -> str:
    """Return an error that the user can fix as one or two sentences for the terminal.

    Args:
        error: See `is_user_error`.
        command: Name of the command, whose keys are suggested for a misspelt one.
    """
    if isinstance(error, OverrideParseException):
        return describe_bad_argument(error.override, sys.argv[1:], command)
    if isinstance(error, MissingConfigException):
        return _describe_choice(error)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _describe_override(str(error).strip(), error, command)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {FILE_ERRORS.get(error.errno or 0, error.strerror)}."
    return str(error).strip()


def _describe_choice(error: MissingConfigException) -> str:
    """Describe an unknown option of a group."""
    options = [option for option in error.options or () if not option.endswith("_schema")]
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if not options:
        return str(error).split("\n", maxsplit=1)[0]
    return f"{group}={name} is not known.{suggest(name, options)} Expected one of: {', '.join(options)}."


def _describe_override(text: str, error: BaseException, command: str) -> str:
    """Describe an override with an unknown key or a value of the wrong type."""
    cause = str(error.__cause__).split("\n", maxsplit=1)[0] if error.__cause__ else ""
    first = text.split("\n", maxsplit=1)[0]
    quoted = text.split("'")
    key = quoted[1] if first.startswith("Could not override") and len(quoted) > 1 else ""
    if key and ("not in" in text + cause):
        return f"unknown key {key}.{suggest_key(key, command, sys.argv[1:])} --cfg job prints every key."
    if first.startswith(AMBIGUOUS) and len(quoted) > 1:
        return describe_several_values(quoted[1])
    if first.startswith(MERGING):
        return _describe_value(first.removeprefix(MERGING), cause)
    lines = [
        line.strip()
        for line in text.splitlines()
        if "object_type" not in line and "reference_type" not in line
    ]
    return " ".join([*lines, cause]).strip()


def _describe_value(override: str, cause: str) -> str:
    """Describe a value of the wrong type."""
    key, _, value = override.partition("=")
    key = key.lstrip("+")
    expected = next((words for mark, words in EXPECTED.items() if mark in cause), None)
    if expected is None:
        return f"{key}: {cause}."
    fix = f" Write '{key}=[{value}]'." if expected == "a list" else ""
    return f"{key}: expected {expected}; received {value}.{fix}"


def is_dashed(argument: str, keys: Collection[str]) -> bool:
    """Return whether an argument is a setting written as an option, and not an option of Hydra's.

    >>> [is_dashed(one, ["run"]) for one in ("--run", "--data.table", "--epochs=3", "--cfg=job", "--help")]
    [True, True, True, False, False]
    """
    name, separator, _ = argument.removeprefix("--").partition("=")
    is_setting = name in keys or "." in name or (bool(separator) and name not in HYDRA_OPTIONS)
    return argument.startswith("--") and is_setting


def put_options_first(arguments: Sequence[str]) -> list[str]:
    """Return the command line with Hydra's options before the settings; between settings Hydra refuses them.

    >>> put_options_first(["model=mine", "--config-dir=conf", "seed=1", "-cd", "conf", "-m"])
    ['--config-dir=conf', '-cd', 'conf', '-m', 'model=mine', 'seed=1']
    """
    if "--info" in arguments:  # it would take a setting behind it for its own value
        return list(arguments)
    options, settings, rest = list[str](), list[str](), iter(arguments)
    for argument in rest:
        (options if argument.startswith("-") else settings).append(argument)
        if argument in OPTIONS_WITH_VALUE:
            options.extend(itertools.islice(rest, 1))
    return [*options, *settings]


def describe_dashed(argument: str) -> str:
    """Describe a setting that is written as an option.

    >>> describe_dashed("--data.table=labels.csv")
    '--data.table=labels.csv: settings have no dashes. Write data.table=labels.csv.'
    """
    key, _, value = argument.lstrip("-").partition("=")
    return f"{argument}: settings have no dashes. Write {key}={value or 'VALUE'}."


def describe_several_values(argument: str) -> str:
    """Describe several values without brackets, which may be meant as a list or a sweep.

    >>> describe_several_values("seeds=0,1")
    "seeds=0,1: received several values. For a list write 'seeds=[0,1]'; for one job per value, -m seeds=0,1."
    """
    key, _, values = argument.partition("=")
    return (
        f"{argument}: received several values. For a list write '{key}=[{values}]'; "
        f"for one job per value, -m {argument}."
    )


def describe_bad_argument(argument: str, arguments: Sequence[str], command: str) -> str:
    """Describe an argument that Hydra cannot parse, and how to write it.

    Args:
        argument: The one that Hydra could not parse.
        arguments: The whole command line, without the command.
        command: Name of the command.

    >>> describe_bad_argument("Name", ["data.image_column=File", "Name"], "audit")
    "Name: expected key=value. It may belong to the argument before it; write 'data.image_column=File Name'."
    >>> describe_bad_argument("data.classes=[left,", ["data.classes=[left,", "right]"], "train")
    "data.classes=[left,: the shell has split this value at a space. Write 'data.classes=[left,right]'."
    """
    key, separator, value = argument.partition("=")
    if not separator:
        return f"{argument}: expected key=value. {_suggest_place(argument, arguments, command)}"
    known = list_known_keys(f"{command}{SCHEMA}")
    if known and "." not in key and key not in known and (hint := suggest_key(key, command, arguments)):
        return f"unknown key {key}.{hint} --cfg job prints every key."
    if value.startswith("[") and not value.rstrip().endswith("]"):
        return _describe_split_list(argument, arguments)
    if value.startswith("[") and not {'"', "'"} & set(value):
        items = ",".join(map(_quote_item, value.strip()[1:-1].split(",")))
        return f"{argument}: this value needs quotes. Write it as '{key}=[{items}]'."
    quoted = shlex.quote(f"{key}={quote_text(value)}")
    return f"{argument}: this value needs quotes. Write it as {quoted} (both kinds of quotes)."


def _suggest_place(argument: str, arguments: Sequence[str], command: str) -> str:
    """Return where an argument without `=` may belong: to the next or previous one, or the key of a path."""
    at = arguments.index(argument) if argument in arguments else 0
    before = arguments[at - 1] if at else ""
    after = next(iter(arguments[at + 1 :]), "")
    if after and "=" not in after and argument in list_known_keys(f"{command}{SCHEMA}"):
        return f"Write {argument}={after}."
    key = PATH_KEYS.get(command)
    if key and Path(argument).expanduser().exists():
        quoted = f"'{argument}'" if " " in argument else argument
        return f"Write {key}={quoted}."
    if "=" in before and not before.endswith("="):
        return f"It may belong to the argument before it; write '{before} {argument}'."
    return "See --help for the keys."


def _describe_split_list(argument: str, arguments: Sequence[str]) -> str:
    rest = arguments[arguments.index(argument) + 1 :] if argument in arguments else ()
    ends = [number for number, part in enumerate(rest) if part.rstrip().endswith("]")]
    if not ends or any("=" in part for part in rest[: ends[0] + 1]):
        return f"{argument}: the list does not end. Write '{argument.rstrip(', ')}]'."
    joined = "".join([argument, *rest[: ends[0] + 1]])
    return f"{argument}: the shell has split this value at a space. Write '{joined}'."


def _quote_item(item: str) -> str:
    """Return an item of a list, in quotes if Hydra's grammar needs them.

    >>> _quote_item(" sex"), _quote_item("Age (y)"), _quote_item('"Age (y)"')
    ('sex', '"Age (y)"', '"Age (y)"')
    """
    item = item.strip()
    return item if PLAIN.fullmatch(item) or item[:1] in {'"', "'"} else f'"{item}"'
