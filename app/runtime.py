"""The one room that touches process globals: seeds, precision, threads, memory growth, and what they were."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

import psutil

from app import __version__
from app.devices import backend_name, check_backend, device_names, gpu_capability, has_gpu
from app.processor import prepare_processor
from app.protection import protect_scoring
from app.settings import SettingsError

log = logging.getLogger("voxlift")

PACKAGES = ("tensorflow", "keras", "numpy", "nibabel", "SimpleITK", "scikit-learn", "scipy", "hydra-core")


@dataclass(frozen=True)
class Precision:
    """A Keras dtype policy and why it was chosen."""

    policy: str
    reason: str


def import_quietly() -> None:
    """Import TensorFlow without its start-up lines: native writes to stderr that no variable silences.

    If the import fails, what was held back is shown.

    Raises:
        SettingsError: KERAS_BACKEND names an engine that is not there.
    """
    check_backend()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            import tensorflow as tf  # noqa: F401 - imported for its side effect
        except BaseException:
            held.seek(0)
            os.write(shown, held.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)


def prepare_runtime(*, precision: str, deterministic: bool, seed: int, device: str = "auto") -> Precision:
    """Set seeds, threads, memory, determinism and the precision policy of this process.

    Args:
        precision: `auto` or a Keras policy name.
        deterministic: whether every operation must give the same bits again; slower on a GPU.
        seed: for Python, numpy and Keras.
        device: `gpu` insists on one, `cpu` leaves it alone, `auto` takes what there is.

    Returns:
        The policy in force, and why.

    Raises:
        SettingsError: a GPU is asked for, and there is none.
    """
    import_quietly()
    import keras

    log.info("%s", prepare_processor())
    _choose_device(device)
    _prepare_gpus()
    if deterministic:
        _repeat_exactly()
    keras.utils.set_random_seed(seed)
    chosen = choose_precision(precision, gpu_capability=gpu_capability(), cpu_flags=cpu_flags())
    keras.config.set_dtype_policy(chosen.policy)
    return chosen


def _choose_device(device: str) -> None:
    """Hide the GPUs, or insist on one.

    Raises:
        SettingsError: there is none.
    """
    import tensorflow as tf

    if device == "cpu":
        if backend_name() == "jax":
            os.environ["JAX_PLATFORMS"] = "cpu"  # read when JAX first meets a device, which is yet to come
        else:
            tf.config.set_visible_devices([], "GPU")
    if device == "gpu" and not has_gpu():
        raise SettingsError(
            "device=gpu: expected a GPU, but the engine sees none: the driver, CUDA_VISIBLE_DEVICES or the "
            "extra voxlift[gpu] may be missing. device=auto trains on the CPU."
        )


def _prepare_gpus() -> None:
    """Let TensorFlow take GPU memory as it needs it, and none where another engine computes."""
    import tensorflow as tf

    if backend_name() != "tensorflow":
        tf.config.set_visible_devices([], "GPU")  # it only reads and augments here
        return
    for gpu in tf.config.get_visible_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)  # noqa: FBT003 - the API's own form


def _repeat_exactly() -> None:
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    if backend_name() == "jax":  # read when JAX first meets a device, which has not happened yet
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()


def choose_precision(
    precision: str, *, gpu_capability: tuple[int, int] | None, cpu_flags: frozenset[str]
) -> Precision:
    """The policy for this device.

    Args:
        precision: `auto`, or a policy that is taken as it is.
        gpu_capability: CUDA compute capability (major, minor), None without a GPU.
        cpu_flags: the processor's feature names as Linux spells them.

    >>> choose_precision("auto", gpu_capability=(9, 0), cpu_flags=frozenset()).policy
    'mixed_bfloat16'
    """
    if precision != "auto":
        return Precision(precision, "as asked for")
    if gpu_capability is not None:
        return _for_gpu(gpu_capability)
    native = sorted(cpu_flags & {"avx512_bf16", "amx_bf16"})
    if native:
        return Precision("mixed_bfloat16", f"the CPU computes in bfloat16 ({', '.join(native)})")
    return Precision("float32", "the CPU has no bfloat16 arithmetic, so mixed precision would be emulated")


def _for_gpu(capability: tuple[int, int]) -> Precision:
    spoken = f"the GPU's compute capability is {capability[0]}.{capability[1]}"
    if capability >= (8, 0):
        return Precision("mixed_bfloat16", f"{spoken}: bfloat16 tensor cores, and no loss scaling needed")
    if capability >= (7, 0):
        return Precision("mixed_float16", f"{spoken}: float16 tensor cores, no bfloat16")
    return Precision("float32", f"{spoken}: no tensor cores")


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The processor's feature names on Linux; empty elsewhere (float32 is then chosen)."""
    if not cpuinfo.exists():
        return frozenset()
    for line in cpuinfo.read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


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


@contextmanager
def logging_to_file() -> Iterator[Callable[[Path], None]]:
    """Log to the terminal, and to a file once it is named: what was said before is written there too.

    A refused run leaves no folder behind, so the file can only be named when the checks are through.
    """
    memory = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL, flushOnClose=False)
    handlers: list[logging.Handler] = [TerminalHandler(), memory]

    def attach(path: Path) -> None:
        file = logging.FileHandler(path, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        memory.setTarget(file)
        memory.flush()
        log.removeHandler(memory)
        log.addHandler(file)
        handlers.append(file)

    log.setLevel(logging.INFO)
    log.propagate = False
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield attach
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()


class TerminalHandler(logging.Handler):
    """Prints messages above a running progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        from app.progress import console

        console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)


def load_network(path: Path) -> Any:  # noqa: ANN401 - Keras ships no types
    """A saved network, with our own layers known to Keras, able to score on this device.

    Raises:
        SettingsError: the file is not a Keras model, or is damaged.
    """
    import_quietly()
    import keras

    import models.aggregation
    import models.layers  # noqa: F401 - importing a layer registers it

    try:
        network = keras.saving.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        first = str(error).strip().split("\n", maxsplit=1)[0]
        raise SettingsError(f"{path}: expected a Keras model that can be loaded; {first}") from error
    protect_scoring(network)
    return network
