"""Set what belongs to the whole process: seeds, precision, threads, memory, determinism, user modules.

Precision is chosen by what a device computes fast in. Layers that need float32 keep it: some CPU kernels of
TensorFlow (2.21) are missing or wrong in half precision. The changed precision is saved with the network; a
network that was trained on a GPU is protected when it is loaded on a CPU.
"""

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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxlift.app.errors import SettingsError, install_extra
from voxlift.app.progress import phase
from voxlift.app.runtime.devices import backend_name, check_backend, gpu_capability, has_gpu
from voxlift.app.runtime.logs import MACHINE

log = logging.getLogger("voxlift")
machine = logging.getLogger(MACHINE)

# Options of glibc's mallopt: mmap and trim threshold in bytes. Without them a tensor of tens of megabytes is
# returned to the system when it is freed and mapped again page by page: a training step of ResNet-18 takes
# 309 ms instead of 282.
MALLOC_OPTIONS = {-3: 2**30, -1: 2**31 - 1}
MALLOC_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")
THREAD_VARIABLES = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
HALF = frozenset({"float16", "bfloat16"})
# Of the largest value: rounding in another order stays below it through fifty layers.
FLOAT32_TOLERANCE = 1e-4
HALF_TOLERANCE = 2e-2  # bfloat16 keeps eight bits: each rounding moves a value by up to 0.4 %


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


def _is_no_retracing(record: logging.LogRecord) -> bool:
    """Return False for TensorFlow's advice on its own functions, which come with several networks."""
    return "triggered tf.function retracing" not in record.getMessage()


def _import_tensorflow() -> None:
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as suppressed:
        os.dup2(suppressed.fileno(), 2)
        try:
            import tensorflow as tf

            tf.get_logger().addFilter(_is_no_retracing)
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
        threads = f"{self.threads} thread{'s' * (self.threads != 1)} ({self.threads_reason})"
        return f"CPU: {threads}, oneDNN {kernels}, {memory}"


@functools.cache
def prepare_processor() -> Processor:
    """Set threads and malloc of this process once, as far as its environment variables do not."""
    threads, reason = _set_threads()
    return Processor(
        threads=threads,
        threads_reason=reason,
        onednn=os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1") != "0",
        keeps_memory=keep_freed_memory(),
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


def keep_freed_memory() -> bool:
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


@dataclass(frozen=True)
class Precision:
    """A Keras dtype policy and the reason for it."""

    policy: str
    reason: str


def choose_precision(
    precision: str, *, gpu_capability: tuple[int, int] | None, cpu_flags: frozenset[str]
) -> Precision:
    """Return the dtype policy for a device.

    Args:
        precision: `auto`, or the name of a policy that is taken as it is.
        gpu_capability: CUDA compute capability (major, minor); None without a GPU.
        cpu_flags: The processor's feature names as Linux spells them.

    >>> choose_precision("auto", gpu_capability=(9, 0), cpu_flags=frozenset()).policy
    'mixed_bfloat16'
    """
    if precision != "auto":
        return Precision(precision, "as set")
    if gpu_capability is not None:
        return _choose_for_gpu(gpu_capability)
    native = sorted(cpu_flags & {"avx512_bf16", "amx_bf16"})
    if native:
        return Precision("mixed_bfloat16", f"the CPU computes in bfloat16 ({', '.join(native)})")
    return Precision("float32", "the CPU has no bfloat16 arithmetic, so mixed precision would be emulated")


def _choose_for_gpu(capability: tuple[int, int]) -> Precision:
    found = f"the GPU's compute capability is {capability[0]}.{capability[1]}"
    if capability >= (8, 0):
        return Precision("mixed_bfloat16", f"{found}: bfloat16 tensor cores, and no loss scaling needed")
    if capability >= (7, 0):
        return Precision("mixed_float16", f"{found}: float16 tensor cores, no bfloat16")
    return Precision("float32", f"{found}: no tensor cores")


def read_cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the processor's feature names on Linux; empty elsewhere (float32 is then chosen)."""
    if not cpuinfo.exists():
        return frozenset()
    for line in cpuinfo.read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def rounding_tolerance(network: Any) -> float:  # noqa: ANN401 - untyped Keras
    """Return how far two ways to compute a network may differ, relative to the largest value."""
    layers = network._flatten_layers(include_self=False)  # noqa: SLF001 - Keras has no public walk into nested networks
    is_half = any(getattr(layer, "compute_dtype", None) in HALF for layer in layers)
    return HALF_TOLERANCE if is_half else FLOAT32_TOLERANCE


def keep_logits_precise(network: Any) -> None:  # noqa: ANN401 - untyped Keras
    """Let the layer of the logits compute in float32, whatever the other layers compute in.

    Our own heads already do; this is for a user's network.
    """
    head = network.layers[-1]
    if head.compute_dtype in HALF:
        log.info("float32 instead of %s for the logits (%s)", head.compute_dtype, head.name)
        head.dtype_policy = "float32"


def protect_training(network: Any) -> None:  # noqa: ANN401 - untyped Keras
    """Make a network safe to train on this device, and log the changed layers."""
    message = "float32 instead of bfloat16 for convolutions on few slices"
    _protect(network, protect_shallow_convolutions, message)
    protect_scoring(network)


def protect_scoring(network: Any) -> None:  # noqa: ANN401 - untyped Keras
    """Make a network able to score on this device, and log the changed layers."""
    _protect(network, protect_pooling, "float32 instead of float16 for pooling, which has no float16 kernel")


def _protect(network: Any, change: Callable[[Any], list[str]], message: str) -> None:  # noqa: ANN401 - as above
    """Change layers where TensorFlow computes on the CPU."""
    if backend_name() != "tensorflow" or gpu_capability() is not None:
        return
    names = change(network)
    if names:
        log.info("%s: %s", message, ", ".join(names))


def protect_shallow_convolutions(network: Any) -> list[str]:  # noqa: ANN401 - untyped Keras
    """Let 3D convolutions on few slices compute in float32 instead of bfloat16.

    TensorFlow's bfloat16 kernel for the filter gradient reads uninitialised memory where the depth is not
    larger than the kernel's: seen as NaN after a few steps (2.21, AVX512-BF16; depth 2 under a kernel of 3,
    depth 4 under one of 5). Layers that compute this gradient in another way are left alone.

    Returns:
        The names of the changed layers.
    """
    import keras

    from voxlift.models.layers.few_positions import FewPositionsConv3D, is_shallow

    changed = []
    for layer in network._flatten_layers():  # noqa: SLF001 - Keras has no public walk into nested networks
        is_bfloat = getattr(layer, "compute_dtype", None) == "bfloat16"
        if not (isinstance(layer, keras.layers.Conv3D) and is_bfloat):
            continue
        is_safe = isinstance(layer, FewPositionsConv3D) and layer.uses_custom_kernels
        if not is_safe and is_shallow(layer.input.shape[1], layer.kernel_size[0]):
            layer.dtype_policy = "float32"
            changed.append(str(layer.name))
    return changed


def protect_pooling(network: Any) -> list[str]:  # noqa: ANN401 - untyped Keras
    """Let 3D pooling compute in float32 instead of float16.

    TensorFlow has no float16 CPU kernel for MaxPool3D and AvgPool3D, which adaptive pooling calls too; all
    other operations of our networks have one.

    Returns:
        The names of the changed layers.
    """
    import keras

    layers = keras.layers
    windows = layers.MaxPooling3D | layers.AveragePooling3D
    adaptive = layers.AdaptiveMaxPooling3D | layers.AdaptiveAveragePooling3D
    changed = []
    for layer in network._flatten_layers():  # noqa: SLF001 - as above
        if isinstance(layer, windows | adaptive) and layer.compute_dtype == "float16":
            layer.dtype_policy = "float32"
            changed.append(str(layer.name))
    return changed
