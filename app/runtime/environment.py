"""Describe what a run is made with: versions, commit, device and precision."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from voxlift import __version__
from voxlift.app.runtime.devices import backend_name, list_device_names
from voxlift.app.runtime.setup import Precision, prepare_processor

PACKAGES = ("tensorflow", "keras", "numpy", "nibabel", "SimpleITK", "scikit-learn", "scipy", "hydra-core")


def describe_environment(precision: Precision) -> dict[str, Any]:
    """Return versions, commit, device and precision, for a run's `environment.json`."""
    backend = backend_name()
    return {
        "voxlift": __version__,
        "git_commit": read_git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: metadata.version(name) for name in dict.fromkeys((*PACKAGES, backend))},
        "backend": backend,
        "device": ", ".join(list_device_names()),
        "cpu": asdict(prepare_processor()),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "precision": precision.policy,
        "precision_reason": precision.reason,
    }


def read_git_commit() -> str | None:
    """Return the commit of the source tree; None for an installed package."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607 - git is found as the user's shell finds it
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
