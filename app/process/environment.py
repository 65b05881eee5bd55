"""What a process runs on and has used: versions, device, memory."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from voxlift import __version__
from voxlift.app.process.devices import backend_name, device_names
from voxlift.app.process.precision import Precision
from voxlift.app.process.processor import prepare_processor

PACKAGES = ("tensorflow", "keras", "numpy", "nibabel", "SimpleITK", "scikit-learn", "scipy", "hydra-core")


def describe_environment(precision: Precision) -> dict[str, Any]:
    """Versions, commit, device and precision, for a run's `environment.json`."""
    backend = backend_name()
    return {
        "voxlift": __version__,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: metadata.version(name) for name in dict.fromkeys((*PACKAGES, backend))},
        "backend": backend,
        "device": ", ".join(device_names()),
        "cpu": prepare_processor().described(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "precision": precision.policy,
        "precision_reason": precision.reason,
    }


def git_commit() -> str | None:
    """The commit of the source tree, None for an installed package."""
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


def peak_memory_bytes() -> int:
    """The largest resident memory that this process has had so far."""
    import resource  # not on Windows, and only this function needs it

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counted = largest * (1 if platform.system() == "Darwin" else 1024)
    return max(counted, psutil.Process().memory_info().rss)  # the count lags a little behind
