"""Commands in tests: composed as their door composes them, or started in processes of their own."""

import os
import subprocess
import sys

from hydra import compose, initialize_config_module

from voxlift.app.config import register_schemas


def compose_command(name, *overrides):
    """The configuration of `voxlift-NAME` with these overrides, unchecked."""
    register_schemas()
    with initialize_config_module("voxlift.conf", version_base="1.3"):
        return compose(name, overrides=list(overrides))


def own_environment(**more):
    """This process's environment, with all that it can import, and what is named besides; text is UTF-8."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUTF8": "1", **more}


def run_python(*arguments, cwd=None, timeout=None, **environment):
    """How a Python process of its own ended, and what it said; `environment` is added to this process's."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=own_environment(**environment),
        capture_output=True,
        encoding="utf-8",
        timeout=timeout,
        check=False,
    )
