"""The machine under a measurement: its device, the memory that is held and allowed, how busy it is."""

from __future__ import annotations

import os
import platform

import psutil

from voxlift.app.process.environment import peak_memory_bytes


def device_kind() -> str:
    """`GPU` or `CPU`: what the training computes on."""
    import tensorflow as tf

    return "GPU" if tf.config.list_physical_devices("GPU") else "CPU"


def device_peak_bytes() -> int:
    """The GPU's peak where there is one, else the largest resident memory of this process."""
    import tensorflow as tf

    if device_kind() == "GPU":
        return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
    return peak_memory_bytes()


def held_bytes() -> int:
    """What is held now of the memory whose peak `device_peak_bytes` gives."""
    import tensorflow as tf

    if device_kind() == "GPU":
        return int(tf.config.experimental.get_memory_info("GPU:0")["current"])
    return int(psutil.Process().memory_info().rss)


def load_per_core() -> float:
    """How busy this machine has been during the last minute, 1 for all cores."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def limit_memory(limit: int) -> str:
    """Let this process take no more than `limit` bytes of resident memory from now on; how that is done.

    Address space is what Linux can limit; what is mapped without being used so far is granted on top. Native
    code that gets no memory may crash, which leaves no core file.
    """
    if platform.system() != "Linux":
        return "no limit is set on this system; memory is measured afterwards"
    import resource

    memory = psutil.Process().memory_info()
    granted = max(0, limit - memory.rss)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    resource.setrlimit(resource.RLIMIT_AS, (memory.vms + granted, hard))
    return "a limit on the process's address space (RLIMIT_AS)"
