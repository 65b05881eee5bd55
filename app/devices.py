"""What computes: the engine under Keras, its processors, and how much memory they have.

Nothing here is decided, only looked up. TensorFlow or JAX is imported when a question needs it.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from app.settings import SettingsError

BACKENDS = ("tensorflow", "jax")  # each needs the package of its name
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Memory:
    """What one device can still give to a training, in bytes, and how it is called in a sentence."""

    free: int
    name: str


def backend_name(environment: Mapping[str, str] = os.environ) -> str:
    """The engine that Keras will run on: what KERAS_BACKEND says, TensorFlow by default."""
    return environment.get("KERAS_BACKEND", "tensorflow")


def check_backend(environment: Mapping[str, str] = os.environ) -> None:
    """Pass when the engine is one that Voxlift trains on, and installed; imports nothing.

    Raises:
        SettingsError: with the way out.
    """
    name = backend_name(environment)
    if name not in BACKENDS:
        raise SettingsError(f"KERAS_BACKEND: expected {' or '.join(BACKENDS)}; received {name}.")
    if importlib.util.find_spec(name) is None:
        raise SettingsError(
            f"KERAS_BACKEND={name}: expected the package {name}, which is not installed. "
            f"Install it with: pip install 'voxlift[{name}]'."
        )


def gpu_capability() -> tuple[int, int] | None:
    """Compute capability of the first GPU that the engine sees, or None."""
    found = _jax_capability() if backend_name() == "jax" else _tensorflow_capability()
    major, _, minor = found.partition(".")
    return (int(major), int(minor)) if found else None


def has_gpu() -> bool:
    """Whether the engine sees a GPU that it may use."""
    return bool(_jax_names() if backend_name() == "jax" else _tensorflow_names())


def device_names() -> list[str]:
    """The GPUs by name, or the CPU with its cores."""
    found = _jax_names() if backend_name() == "jax" else _tensorflow_names()
    return found or [f"CPU, {os.cpu_count()} cores"]


def free_memory() -> Memory:
    """The memory that a training may still take: of the first GPU, or of this machine or container."""
    if gpu_capability() is None:
        return host_memory()
    limit = _jax_gpu_bytes() if backend_name() == "jax" else _tensorflow_gpu_bytes()
    return Memory(limit, device_names()[0])


def host_memory(cgroup: Path = CGROUP) -> Memory:
    """Free memory of the machine, or what a container's limit leaves where that is less."""
    available = int(psutil.virtual_memory().available)
    left = cgroup_bytes_left(cgroup)
    if left is not None and left < available:
        return Memory(left, "this container")
    return Memory(available, "this machine")


def cgroup_bytes_left(cgroup: Path = CGROUP) -> int | None:
    """Limit minus use of the control group, version 2 or 1; None where there is no limit.

    What the kernel can drop (pages of files) does not count as used.
    """
    places = (
        (cgroup / "memory.max", cgroup / "memory.current", cgroup / "memory.stat"),
        (
            cgroup / "memory/memory.limit_in_bytes",
            cgroup / "memory/memory.usage_in_bytes",
            cgroup / "memory/memory.stat",
        ),
    )
    for limit, used, statistics in places:
        try:
            left = int(limit.read_text()) - int(used.read_text())
        except (OSError, ValueError):  # no such version, or the word `max`
            continue
        return left + _droppable(statistics)
    return None


def _droppable(statistics: Path) -> int:
    try:
        lines = statistics.read_text().splitlines()
    except OSError:
        return 0
    values = dict(line.split(maxsplit=1) for line in lines if " " in line)
    return int(values.get("inactive_file", values.get("total_inactive_file", "0")))


def _tensorflow_capability() -> str:
    import tensorflow as tf

    gpus = tf.config.get_visible_devices("GPU")
    found = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability") if gpus else None
    return f"{found[0]}.{found[1]}" if found else ""


def _tensorflow_names() -> list[str]:
    import tensorflow as tf

    gpus = tf.config.get_visible_devices("GPU")
    return [str(tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")) for gpu in gpus]


def _tensorflow_gpu_bytes() -> int:
    """What TensorFlow would let its allocator take; with memory growth it takes it only when needed."""
    from tensorflow.python.client import device_lib

    devices = device_lib.list_local_devices()
    return next(int(device.memory_limit) for device in devices if device.device_type == "GPU")


def _jax_capability() -> str:
    gpus = _jax_gpus()
    return str(getattr(gpus[0], "compute_capability", "")) if gpus else ""


def _jax_names() -> list[str]:
    return [str(gpu.device_kind) for gpu in _jax_gpus()]


def _jax_gpu_bytes() -> int:
    statistics = _jax_gpus()[0].memory_stats()
    return int(statistics["bytes_limit"] - statistics["bytes_in_use"])


def _jax_gpus() -> list[Any]:
    import jax

    return [device for device in jax.local_devices() if device.platform == "gpu"]
