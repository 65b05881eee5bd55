"""Look up the backend of Keras, its devices, and their memory.

Nothing is changed here. TensorFlow or JAX is imported only where it has to be asked.
"""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from voxlift.app.errors import SettingsError, install_extra

BACKENDS = ("tensorflow", "jax")  # each is the name of a package, too
CGROUP = Path("/sys/fs/cgroup")
PROCESS_CGROUPS = Path("/proc/self/cgroup")
CGROUP_FILES = (  # limit and use of memory in a control group, version 2 and 1
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)


@dataclass(frozen=True)
class Memory:
    """Free memory of one device.

    Attributes:
        free: Bytes.
        name: Of the device or the limit, for messages.
    """

    free: int
    name: str


def backend_name(environment: Mapping[str, str] = os.environ) -> str:
    """Return the backend that Keras uses: the value of KERAS_BACKEND, `tensorflow` by default."""
    return environment.get("KERAS_BACKEND", "tensorflow")


def check_backend(environment: Mapping[str, str] = os.environ) -> None:
    """Check that the backend is supported and installed, without importing it.

    Raises:
        SettingsError: It is not.
    """
    name = backend_name(environment)
    if name not in BACKENDS:
        raise SettingsError(f"KERAS_BACKEND: expected {' or '.join(BACKENDS)}; received {name}.")
    if importlib.util.find_spec(name) is None:
        raise SettingsError(
            f"KERAS_BACKEND={name}: expected the package {name}, which is not installed. "
            f"{install_extra(name)}"
        )


def gpu_capability() -> tuple[int, int] | None:
    """Return the CUDA compute capability (major, minor) of the first visible GPU; None without one."""
    found = _jax_capability() if backend_name() == "jax" else _tensorflow_capability()
    major, _, minor = found.partition(".")
    return (int(major), int(minor)) if found else None


def has_gpu() -> bool:
    """Return whether the backend has a visible GPU."""
    return bool(_jax_names() if backend_name() == "jax" else _tensorflow_names())


def list_device_names() -> list[str]:
    """Return the names of the visible GPUs, or the CPU with its number of cores."""
    found = _jax_names() if backend_name() == "jax" else _tensorflow_names()
    return found or [f"CPU, {os.cpu_count()} cores"]


def find_free_memory() -> Memory:
    """Return the free memory of the first GPU, or of this machine or container."""
    if gpu_capability() is None:
        return find_host_memory()
    limit = _jax_gpu_bytes() if backend_name() == "jax" else _tensorflow_gpu_bytes()
    return Memory(limit, list_device_names()[0])


def find_host_memory(cgroup: Path = CGROUP, own: Path = PROCESS_CGROUPS) -> Memory:
    """Return the free memory of the machine, or what a container, a batch job or `ulimit -v` leaves of it."""
    found = [Memory(int(psutil.virtual_memory().available), "this machine")]
    in_group, in_process = read_cgroup_bytes_left(cgroup, own), read_address_space_left()
    if in_group is not None:
        found.append(Memory(in_group, "this container or batch job"))
    if in_process is not None:
        found.append(Memory(in_process, "this process (ulimit -v)"))
    return min(found, key=lambda memory: memory.free)


def read_cgroup_bytes_left(cgroup: Path = CGROUP, own: Path = PROCESS_CGROUPS) -> int | None:
    """Return limit minus use, in bytes, of the tightest control group of this process; None without a limit.

    What the kernel can drop (cached pages of files) does not count as used.

    Args:
        cgroup: Where control groups of version 2, or the folder `memory` of version 1, are mounted.
        own: The file that names this process's groups below that.
    """
    found = [_read_group(folder) for folder in _list_groups(cgroup, own)]
    return min((left for left in found if left is not None), default=None)


def read_address_space_left() -> int | None:
    """Return the bytes that `ulimit -v` still allows; None without a limit."""
    import resource  # not on Windows

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit - int(psutil.Process().memory_info().vms)


def read_peak_memory_bytes() -> int:
    """Return the largest resident memory that this process has had so far."""
    import resource  # as above

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counted = largest * (1 if platform.system() == "Darwin" else 1024)
    return max(counted, psutil.Process().memory_info().rss)  # the count lags a little behind


def _list_groups(cgroup: Path, own: Path) -> Iterator[Path]:
    """Yield the folders of the process's group and its parents; a container may see the outermost only."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    yield from (cgroup, cgroup / "memory")
    for line in lines:
        _, controllers, path = line.split(":", maxsplit=2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = cgroup / "memory" if controllers else cgroup
        inner = root / path.lstrip("/")
        yield from (folder for folder in (inner, *inner.parents) if root in folder.parents)


def _read_group(folder: Path) -> int | None:
    for limit, used in CGROUP_FILES:
        try:
            left = int((folder / limit).read_text()) - int((folder / used).read_text())
        except (OSError, ValueError):  # another version, or the word `max`
            continue
        return left + _read_droppable(folder / "memory.stat")
    return None


def _read_droppable(statistics: Path) -> int:
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
    """Return the limit of TensorFlow's allocator; with memory growth it allocates only what is needed."""
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
