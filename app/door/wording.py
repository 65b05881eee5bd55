"""What went wrong, told in the user's words instead of the machinery's."""

from __future__ import annotations

import errno
import sys

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from voxlift.app.door.quoting import explain_grammar, list_or_sweep
from voxlift.app.door.suggestions import suggest, suggest_key
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
