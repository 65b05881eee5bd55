"""The front door of every command: Hydra started our way, and each outcome turned into its exit status.

0 done, 1 the audit found something, 2 the user's input or configuration, 130 interrupted, 70 a crash of
ours (its traceback is kept).
"""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from app.settings import SettingsError, register_schemas

Settings = TypeVar("Settings")

DONE, FOUND, USER_ERROR, CRASH, INTERRUPTED = 0, 1, 2, 70, 130


class UserError(ValueError):
    """The user's input is at fault, said in a sentence or two, where no room has an error of its own."""


class JobFailed(RuntimeError):  # noqa: N818 - it carries a status, and what failed has said why
    """A job of a sweep ended with another exit status than 0."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def run_command(config_name: str, job: Callable[[DictConfig], int | None]) -> NoReturn:
    """Run `job` under Hydra with `conf/<config_name>.yaml` and leave the process with its exit status.

    Args:
        config_name: the command's primary configuration.
        job: gets the composed configuration; returns an exit status, or None for 0.
    """
    # Hydra otherwise swallows exceptions, prints its own hint and leaves with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register_schemas()
    statuses: list[int] = []

    def guarded(cfg: DictConfig) -> int:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            # A sweep stops at the first job that fails, whichever launcher ran it: only an exception travels.
            _refuse_shared_run_dir(cfg)
            status = job(cfg) or DONE
            if status:
                raise JobFailed(status)
            return status
        statuses.append(_status_of(lambda: job(cfg) or DONE, debug=bool(cfg.get("debug", False))))
        return statuses[-1]

    start = hydra.main(version_base="1.3", config_path="pkg://conf", config_name=config_name)(guarded)
    status = _status_of(lambda: start() or DONE, debug=False)
    sys.stdout.flush()
    sys.exit(max([status, *statuses]))


def to_settings(cfg: DictConfig, schema: type[Settings]) -> Settings:
    """A composed configuration as a value of its schema.

    Raises:
        TypeError: the configuration was composed from another schema, which is a mistake of ours.
    """
    settings = OmegaConf.to_object(cfg)
    if not isinstance(settings, schema):
        raise TypeError(
            f"expected a configuration with the schema of {schema.__name__}, got {type(settings).__name__}"
        )
    return settings


def _refuse_shared_run_dir(cfg: DictConfig) -> None:
    if cfg.get("run_dir"):
        raise SettingsError(
            f"run_dir={cfg.run_dir} with -m: all jobs of a sweep would write that folder; leave run_dir out."
        )


def _status_of(call: Callable[[], int], *, debug: bool) -> int:
    try:
        return call()
    except BrokenPipeError:
        # The reader of a pipe (head, less) has left: nothing to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted.\n")
        return INTERRUPTED
    except JobFailed as failed:
        return failed.status
    except Exception as error:  # noqa: BLE001 - the process's last line of defence: every error becomes a status
        if not is_user_error(error):
            traceback.print_exc()
            return CRASH
        if debug:
            traceback.print_exc()
        sys.stderr.write(f"error: {explain(error)}\n")
        return USER_ERROR


def is_user_error(error: BaseException) -> bool:
    """Whether the user can mend the cause: our own errors, a wrong configuration, an unusable file."""
    names = {"SettingsError", "ManifestError", "VolumeError", "LiftError", "UserError", "ScoresError"}
    ours = any(cls.__name__ in names for cls in type(error).__mro__)
    return ours or isinstance(error, HydraException | OmegaConfBaseException | OSError)


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
