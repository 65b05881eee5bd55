"""The front door of every command: Hydra started our way, and each outcome turned into its exit status.

0 done, 1 the audit found something, 2 the user's input or configuration, 130 interrupted, 70 a crash of
ours (its traceback is kept) or of the engine, 75 a process of several was lost and the run can go on, 128 + N
ended from outside by signal N.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from voxlift import __version__
from voxlift.app.config import register_schemas
from voxlift.app.config.messages import explain, explain_dashes, is_dashed, is_user_error
from voxlift.app.config.overrides import to_settings
from voxlift.app.config.suggestions import SCHEMA, known_keys, register_choices
from voxlift.app.errors import SettingsError, refuse_problems
from voxlift.app.runtime.exit_status import CRASH, DONE, INTERRUPTED, USER_ERROR
from voxlift.app.runtime.supervisor import hand_over

Settings = TypeVar("Settings")


class JobFailed(RuntimeError):  # noqa: N818 - it carries a status, and what failed has said why
    """A job of a sweep ended with another exit status than 0."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def run_command(
    config_name: str, job: Callable[[DictConfig], int | None], *, is_supervised: bool = False
) -> NoReturn:
    """Run `job` under Hydra with `conf/<config_name>.yaml` and leave the process with its exit status.

    Args:
        config_name: the command's primary configuration.
        job: gets the composed configuration; returns an exit status, or None for 0.
        is_supervised: whether another process shall say how this one ended, where it cannot do so itself.
    """
    if is_supervised:
        hand_over()
    # Hydra otherwise swallows exceptions, prints its own hint and leaves with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register_schemas()
    register_choices()
    _answer_alone(sys.argv[1:], config_name)
    statuses: list[int] = []

    def guarded(cfg: DictConfig) -> int:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            # A sweep stops at the first job that fails, whichever launcher ran it: only an exception travels.
            _refuse_shared_run_dir(cfg)
            status = job(cfg) or DONE
            if status:
                raise JobFailed(status)
            return status
        debug = bool(cfg.get("debug", False))
        statuses.append(_status_of(lambda: job(cfg) or DONE, config_name, debug=debug))
        return statuses[-1]

    start = hydra.main(version_base="1.3", config_path="pkg://voxlift.conf", config_name=config_name)(guarded)
    status = _status_of(lambda: start() or DONE, config_name, debug=False)
    sys.stdout.flush()
    sys.exit(max([status, *statuses]))


def open_command(
    config_name: str,
    *,
    read: Callable[[DictConfig], Settings],
    job: Callable[[Settings], int],
    is_supervised: bool = False,
) -> NoReturn:
    """Run a command whose whole input is one value: read from its configuration, handed over.

    Args:
        config_name: the command's primary configuration.
        read: the settings of a composed configuration, checked; see `reader`.
        job: the command; returns an exit status.
        is_supervised: as in `run_command`.
    """
    run_command(config_name, lambda cfg: job(read(cfg)), is_supervised=is_supervised)


def reader(
    schema: type[Settings], problems: Callable[[Settings], Sequence[str]]
) -> Callable[[DictConfig], Settings]:
    """What reads a command's settings: as a value of its schema, refused with all that is wrong with it.

    Args:
        schema: what the configuration is composed from.
        problems: everything that is wrong with the settings, one sentence each, before anything is read.
    """

    def read(cfg: DictConfig) -> Settings:
        settings = to_settings(cfg, schema)
        refuse_problems(problems(settings))
        return settings

    return read


def _answer_alone(words: Sequence[str], config_name: str) -> None:
    """Answer what Hydra's parser would answer for itself: its own version, a usage for a dashed setting."""
    if "--version" in words:
        sys.stdout.write(f"voxlift {__version__}\n")
        sys.exit(DONE)
    keys = known_keys(f"{config_name}{SCHEMA}")
    dashed = next((word for word in words if is_dashed(word, keys)), None)
    if dashed:
        sys.stderr.write(f"error: {explain_dashes(dashed)}\n")
        sys.exit(USER_ERROR)


def _refuse_shared_run_dir(cfg: DictConfig) -> None:
    if cfg.get("run_dir"):
        raise SettingsError(
            f"run_dir={cfg.run_dir} with -m: all jobs of a sweep would write that folder; leave run_dir out."
        )


def _status_of(call: Callable[[], int], command: str, *, debug: bool) -> int:
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
        sys.stderr.write(f"error: {explain(error, command=command)}\n")
        return USER_ERROR
