"""Commands in tests: their composed configuration, a call in this process, or a process of their own."""

import importlib
import os
import subprocess
import sys
from unittest import mock

import pytest
from hydra import compose, initialize_config_module

from voxlift.app.config import register_schemas


def compose_command(name, *overrides):
    """Return the configuration of `voxlift-NAME` with these overrides, unchecked."""
    register_schemas()
    with initialize_config_module("voxlift.conf", version_base="1.3"):
        return compose(name, overrides=list(overrides))


def call_command(name, *arguments):
    """Run `voxlift-NAME` in this process and return its exit status."""
    main = importlib.import_module(f"voxlift.app.cli.{name}").main
    with (
        mock.patch.object(sys, "argv", [f"voxlift-{name}", *map(str, arguments)]),
        mock.patch("voxlift.app.cli.command.fork_supervised"),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return ended.value.code


def own_environment(**more):
    """Return this process's environment with its import path, text in UTF-8, and further variables."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUTF8": "1", **more}


def run_python(*arguments, cwd=None, timeout=None, **environment):
    """Run a new Python process and return how it ended; `environment` is added to this process's."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=own_environment(**environment),
        capture_output=True,
        encoding="utf-8",
        timeout=timeout,
        check=False,
    )
