"""Set what belongs to the whole process: seeds, precision, threads, memory, determinism, user modules."""

from __future__ import annotations

import ctypes
import functools
import importlib
import logging
import math
import os
import platform
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from voxlift.app.errors import SettingsError, install_extra
from voxlift.app.progress import phase
from voxlift.app.runtime.devices import backend_name, check_backend, gpu_capability, has_gpu
from voxlift.app.runtime.logs import MACHINE
from voxlift.app.runtime.precision import Precision, choose_precision, read_cpu_flags

log = logging.getLogger("voxlift")
machine = logging.getLogger(MACHINE)

# Options of glibc's mallopt: mmap and trim threshold in bytes. Without them a tensor of tens of megabytes is
# returned to the system when it is freed and mapped again page by page: a training step of ResNet-18 takes
# 309 ms instead of 282.
MALLOC_OPTIONS = {-3: 2**30, -1: 2**31 - 1}
MALLOC_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")
THREAD_VARIABLES = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


def prepare_runtime(*, precision: str, deterministic: bool, seed: int, device: str = "auto") -> Precision:
    """Set seeds, threads, memory, determinism and the precision policy of this process.

    Args:
        precision: `auto` or the name of a Keras dtype policy.
        deterministic: Whether every operation must repeat its bits; slower on a GPU.
        seed: Of Python, numpy and Keras.
        device: `gpu` requires a GPU, `cpu` uses none, `auto` takes what there is.

    Returns:
        The policy in force, and why it was chosen.

    Raises:
        SettingsError: `device` is `gpu` and no GPU is found.
    """
    with phase("Starting TensorFlow"):
        import_quietly()
        import keras

    machine.info("%s", prepare_processor())
    _select_device(device)
    _prepare_gpus()
    if deterministic:
        _enable_determinism()
    keras.utils.set_random_seed(seed)
    chosen = choose_precision(precision, gpu_capability=gpu_capability(), cpu_flags=read_cpu_flags())
    keras.config.set_dtype_policy(chosen.policy)
    return chosen


def import_quietly() -> None:
    """Import TensorFlow and Keras without their start-up lines, and with Keras's own defaults.

    The lines are native writes to stderr that no variable silences; if an import fails, they are shown.

    Raises:
        SettingsError: KERAS_BACKEND names a backend that is not supported or not installed, or Keras cannot
            read the user's `keras.json`.
    """
    check_backend()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("KERAS_NNX_ENABLED", "false")
    _import_tensorflow()
    _import_keras()


def _import_tensorflow() -> None:
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as suppressed:
        os.dup2(suppressed.fileno(), 2)
        try:
            import tensorflow as tf  # noqa: F401 - imported for its side effect
        except BaseException:
            suppressed.seek(0)
            os.write(stderr, suppressed.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _import_keras() -> None:
    """Import Keras, and undo what the user's `keras.json` or Keras's environment variables change.

    With another layout, floating-point type or number of epochs the same command would train another network.
    """
    try:
        import keras
    except (ValueError, TypeError, AttributeError) as error:  # what a value of another kind raises there
        file = Path(os.environ.get("KERAS_HOME", "~/.keras")) / "keras.json"
        raise SettingsError(
            f"Keras cannot use {file}, or a variable KERAS_...: {error} Correct or remove it."
        ) from error
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)


@contextmanager
def unchanged_randomness() -> Iterator[None]:
    """Restore the state of Python's and numpy's generators, which seed Keras's, at the end of the block."""
    import numpy as np

    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the generator that libraries use
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002 - as above


@dataclass(frozen=True)
class Processor:
    """How TensorFlow uses the CPU in this process; its fields are saved in `environment.json`.

    Attributes:
        threads: Number of threads within an operation, and of operations at once.
        threads_reason: Why this number.
        onednn: Whether oneDNN's kernels are on.
        keeps_memory: Whether freed memory stays with the process for the next step.
    """

    threads: int
    threads_reason: str
    onednn: bool
    keeps_memory: bool

    def __str__(self) -> str:
        """Return one line for the log."""
        memory = "freed memory kept for the next step" if self.keeps_memory else "malloc settings unchanged"
        kernels = "on" if self.onednn else "off (TF_ENABLE_ONEDNN_OPTS)"
        return f"CPU: {self.threads} threads ({self.threads_reason}), oneDNN {kernels}, {memory}"


@functools.cache
def prepare_processor() -> Processor:
    """Set threads and malloc of this process once, as far as its environment variables do not."""
    threads, reason = _set_threads()
    return Processor(
        threads=threads,
        threads_reason=reason,
        onednn=os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1") != "0",
        keeps_memory=_keep_freed_memory(),
    )


def count_usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> tuple[int, str]:
    """Return how many CPUs this process may really use, and what limits them.

    TensorFlow starts a thread for each CPU that it sees; in a container with a quota they would only wait for
    one another.

    Args:
        cgroup: Folder of the container's limits, of cgroup version 2 or 1.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _read_cpu_quota(cgroup)
    if quota is not None and quota < allowed:
        return max(1, math.ceil(quota)), f"the container's quota of {quota:g} CPUs"
    return allowed, "one for each CPU"


def _read_cpu_quota(cgroup: Path) -> float | None:
    """Return the CPUs that a container may use; None without a limit."""
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

    set_by_user = [name for name in THREAD_VARIABLES if name in os.environ]
    if set_by_user:
        value = os.environ.get(THREAD_VARIABLES[0], "")
        threads = int(value) if value.isdigit() else count_usable_cpus()[0]
        return threads, f"set by {' and '.join(set_by_user)}"
    threads, reason = count_usable_cpus()
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:  # TensorFlow has computed before: its threads exist
        return tf.config.threading.get_intra_op_parallelism_threads() or threads, "as started before"
    return threads, reason


def _keep_freed_memory() -> bool:
    """Let malloc keep what is freed; return False without glibc, or where the user has set malloc."""
    if platform.libc_ver()[0] != "glibc" or any(os.environ.get(name) for name in MALLOC_VARIABLES):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(option, value) for option, value in MALLOC_OPTIONS.items())


def _select_device(device: str) -> None:
    """Hide the GPUs, or require one."""
    import tensorflow as tf

    if device == "cpu":
        if backend_name() == "jax":
            os.environ["JAX_PLATFORMS"] = "cpu"  # read when JAX first uses a device, which is yet to come
        else:
            tf.config.set_visible_devices([], "GPU")
    if device == "gpu" and not has_gpu():
        raise SettingsError(
            f"device=gpu: expected a GPU; {backend_name()} finds none. Check the driver, "
            f"CUDA_VISIBLE_DEVICES and the extra gpu. {install_extra('gpu')} device=auto trains on the CPU."
        )


def _prepare_gpus() -> None:
    """Let TensorFlow allocate GPU memory as it needs it, and none where another backend computes."""
    import tensorflow as tf

    if backend_name() != "tensorflow":
        tf.config.set_visible_devices([], "GPU")  # it only reads and augments here
        return
    for gpu in tf.config.get_visible_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)  # noqa: FBT003 - the API's own form


def _enable_determinism() -> None:
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    if backend_name() == "jax":  # read when JAX first uses a device, which has not happened yet
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()


def allow_working_folder() -> None:
    """Append the working directory to the import path, last."""
    folder = os.getcwd()  # noqa: PTH109 - the import path holds texts
    if folder not in sys.path:
        sys.path.append(folder)


def import_user_modules(names: Sequence[str]) -> None:
    """Import modules that register layers or lift rules; the working directory is importable.

    Args:
        names: Full names, as in the key `custom`.

    Raises:
        SettingsError: A module cannot be imported.
    """
    if not names:
        return
    import_quietly()  # they import Keras
    allow_working_folder()
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise SettingsError(
                f"custom={name}: the module cannot be imported: {type(error).__name__}: {error}. Expected a "
                f"module in {os.getcwd()} or an installed one."  # noqa: PTH109 - as above
            ) from error
