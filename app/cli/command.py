"""Start Hydra for a command, and turn each outcome into an exit status.

0 done; 1 the audit found something that would spoil training; 2 the input or configuration is at fault;
70 an error of Voxlift's own (with its traceback) or a crash of TensorFlow or JAX; 75 one of several processes
was lost and the run can be resumed; 130 interrupted; 128 + N ended from outside by signal N.
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
from voxlift.app.cli import STARTED
from voxlift.app.config import register_schemas
from voxlift.app.config.keys import SCHEMA, list_known_keys, register_choices
from voxlift.app.config.messages import (
    describe_dashed,
    describe_error,
    is_dashed,
    is_user_error,
    put_options_first,
)
from voxlift.app.config.overrides import quote_argument, refuse_option_lists
from voxlift.app.errors import SettingsError
from voxlift.app.progress import keep_pulse, pulse
from voxlift.app.runtime.exit_status import CRASH, DONE, INTERRUPTED, USER_ERROR
from voxlift.app.runtime.failures import die_with_parent, fork_supervised
from voxlift.app.runtime.streams import prepare_streams
from voxlift.data_pipelines.files import escape_name

Settings = TypeVar("Settings")


class JobFailed(RuntimeError):  # noqa: N818 - it carries a status; the job has printed the reason
    """A job of a sweep ended with an exit status other than 0."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def run_command(
    name: str,
    *,
    read: Callable[[DictConfig], Settings],
    job: Callable[[Settings], int],
    is_supervised: bool = False,
) -> NoReturn:
    """Compose `conf/<name>.yaml` with the command line, run the job, and exit with its status.

    Args:
        name: Of the command and its primary configuration.
        read: Returns the checked settings of a composed configuration.
        job: Runs the command; returns its exit status.
        is_supervised: Whether another process reports how this one ended, where it cannot do so itself.
    """
    die_with_parent()
    prepare_streams()
    if is_supervised:
        fork_supervised()
    # Hydra otherwise swallows exceptions, prints its own hint and exits with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    os.environ["MPLBACKEND"] = "agg"  # figures go to files; an unknown one would fail once results are drawn
    register_schemas()
    register_choices()
    _handle_dashed_arguments(sys.argv[1:], name)
    sys.argv[1:] = put_options_first([quote_argument(one) for one in sys.argv[1:]])
    statuses: list[int] = []

    def start_job(cfg: DictConfig) -> int:
        refuse_option_lists()
        return job(read(cfg))

    def run(cfg: DictConfig) -> int:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            # A sweep stops at the first job that fails: with any launcher, only an exception gets through.
            _refuse_shared_run_dir(cfg)
            status = start_job(cfg)
            if status:
                raise JobFailed(status)
            return status
        statuses.append(_run_guarded(lambda: start_job(cfg), name, debug=bool(cfg.get("debug", False))))
        return statuses[-1]

    start = hydra.main(version_base="1.3", config_path="pkg://voxlift.conf", config_name=name)(run)
    with keep_pulse(pulse, since=STARTED.pop() if STARTED else None):
        statuses.append(_run_guarded(lambda: _read_status(start), name, debug=False))
    statuses.append(_run_guarded(_flush_output, name, debug=False))
    sys.exit(max(statuses))


def _read_status(start: Callable[[], object]) -> int:
    """Return the status with which Hydra ends the process after `--help`; its text is still to be written."""
    try:
        start()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else DONE if end.code is None else CRASH
    return DONE


def _flush_output() -> int:
    sys.stdout.flush()  # a full disk below it is an error like any other
    return DONE


def _handle_dashed_arguments(arguments: Sequence[str], command: str) -> None:
    """Print our version instead of Hydra's; refuse settings with dashes, before Hydra prints a usage."""
    if "--version" in arguments:
        sys.stdout.write(f"voxlift {__version__}\n")
        sys.exit(_run_guarded(_flush_output, command, debug=False))
    keys = list_known_keys(f"{command}{SCHEMA}")
    dashed = next((argument for argument in arguments if is_dashed(argument, keys)), None)
    if dashed:
        sys.stderr.write(f"error: {describe_dashed(dashed)}\n")
        sys.exit(USER_ERROR)


def _refuse_shared_run_dir(cfg: DictConfig) -> None:
    if cfg.get("run_dir"):
        raise SettingsError(
            f"run_dir={cfg.run_dir} with -m: all jobs of a sweep would write into it; leave run_dir out."
        )


def _run_guarded(call: Callable[[], int], command: str, *, debug: bool) -> int:
    """Return the exit status of a call, whatever it raises."""
    try:
        return call()
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted.\n")
        return INTERRUPTED
    except JobFailed as failed:
        return failed.status
    except Exception as error:  # noqa: BLE001 - the last handler of the process: every error becomes a status
        if not is_user_error(error):
            traceback.print_exc()
            return CRASH
        if debug:
            traceback.print_exc()
        sys.stderr.write(escape_name(f"error: {describe_error(error, command=command)}\n"))
        return USER_ERROR
