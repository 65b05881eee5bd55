"""The one room that sets process globals: seeds, precision, threads, memory growth."""

from __future__ import annotations

import logging
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from voxlift.app.config import SettingsError
from voxlift.app.errors import install_extra
from voxlift.app.runtime.devices import backend_name, check_backend, gpu_capability, has_gpu
from voxlift.app.runtime.environment import prepare_processor
from voxlift.app.runtime.precision import Precision, choose_precision, cpu_flags

log = logging.getLogger("voxlift")


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
            f"extra gpu may be missing. {install_extra('gpu')} device=auto trains on the CPU."
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


@contextmanager
def unchanged_randomness() -> Iterator[None]:
    """Whatever is drawn inside from Python's and numpy's generators, which seed Keras's, is put back."""
    import numpy as np

    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the generator that libraries use
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002 - as above
