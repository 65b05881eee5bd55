"""What a process runs on and has used: versions, device, memory."""

from __future__ import annotations

import ctypes
import functools
import math
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from voxlift import __version__
from voxlift.app.runtime.devices import backend_name, device_names
from voxlift.app.runtime.precision import Precision

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


# glibc's numbers for mallopt. Without them a tensor of tens of megabytes goes back to the system when it is
# freed and comes again page by page: a training step of ResNet-18 takes 309 ms instead of 282.
MALLOC_OPTIONS = {-3: 2**30, -1: 2**31 - 1}  # mmap and trim threshold, bytes
OWN_MALLOC = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")
OWN_THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


@dataclass(frozen=True)
class Processor:
    """How TensorFlow uses the CPU in this process."""

    threads: int
    threads_reason: str
    onednn: bool
    keeps_memory: bool

    def __str__(self) -> str:
        """One line for the log."""
        memory = (
            "freed memory kept for the next step" if self.keeps_memory else "the system's memory settings"
        )
        kernels = "on" if self.onednn else "off (TF_ENABLE_ONEDNN_OPTS)"
        return f"CPU: {self.threads} threads ({self.threads_reason}), oneDNN {kernels}, {memory}"

    def described(self) -> dict[str, Any]:
        """The same for `environment.json`."""
        return asdict(self)


@functools.cache
def prepare_processor() -> Processor:
    """Set threads and memory of this process once, as far as its environment does not say otherwise."""
    threads, reason = _set_threads()
    return Processor(
        threads=threads,
        threads_reason=reason,
        onednn=os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1") != "0",
        keeps_memory=_keep_memory(),
    )


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> tuple[int, str]:
    """How many CPUs this process may really use, and what says so.

    TensorFlow starts a thread for each CPU that it sees; in a container with a quota they would only wait for
    one another.

    Args:
        cgroup: where the limits of the container stand, of version 2 or 1.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    if quota is not None and quota < allowed:
        return max(1, math.ceil(quota)), f"the container's quota of {quota:g} CPUs"
    return allowed, "one for each CPU"


def _quota(cgroup: Path) -> float | None:
    """CPUs that a container may use, None without a limit."""
    try:
        if (cgroup / "cpu.max").exists():
            limit, period = (cgroup / "cpu.max").read_text().split()
        else:
            limit = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        return float(limit) / float(period) if limit not in {"max", "-1"} else None
    except (OSError, ValueError):
        return None


def _set_threads() -> tuple[int, str]:
    import tensorflow as tf

    named = [name for name in OWN_THREADS if name in os.environ]
    if named:
        value = os.environ.get(OWN_THREADS[0], "")
        return (int(value) if value.isdigit() else usable_cpus()[0]), f"{' and '.join(named)} as you set it"
    threads, reason = usable_cpus()
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:  # TensorFlow computed before: its threads are there
        return tf.config.threading.get_intra_op_parallelism_threads() or threads, "as started before"
    return threads, reason


def _keep_memory() -> bool:
    """Let malloc keep what is freed; False where this is not glibc or the user chose for themselves."""
    if platform.libc_ver()[0] != "glibc" or any(os.environ.get(name) for name in OWN_MALLOC):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(option, value) for option, value in MALLOC_OPTIONS.items())
