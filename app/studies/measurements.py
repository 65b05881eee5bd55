"""What can be measured of a training, by kind: each takes its settings and a request, and gives an answer."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tensorflow as tf
from numpy.typing import NDArray

from voxlift.app.config import ModelSettings, TrainSettings
from voxlift.app.data.cohort import Cohort, gather_cohort
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.networks import load_network
from voxlift.app.runtime.environment import peak_memory_bytes
from voxlift.app.runtime.setup import prepare_runtime
from voxlift.app.studies import bench
from voxlift.app.training.networks import build_networks
from voxlift.models.complexity import model_cost

Answer = dict[str, Any]


def measure_steps(settings: TrainSettings, request: Answer) -> Answer:
    """Speed, memory and noise of the loss over real training steps, the first two left out.

    With accumulated gradients a step is one of the optimiser: all of its batches.
    """
    load = load_per_core()
    table = bench.set_up_bench(settings)
    before = held_bytes()
    batches, portions = bench.endless_batches(table), settings.trainer.accumulate
    bench.train_steps(table.networks.trained, batches, 2 * portions)  # tracing, and the first touch of memory
    seconds, losses, examples = bench.train_steps(
        table.networks.trained, batches, int(request["steps"]), portions=portions
    )
    volumes = examples / table.examples_per_volume
    median = sorted(seconds)[len(seconds) // 2]
    return {
        "train_volumes": len(table.cohort.indices("train")),
        "steps_per_epoch": table.steps_per_epoch,
        "device": device_kind(),
        "seconds_per_step": median,
        "volumes_per_step": volumes / len(seconds),
        "volumes_per_second": volumes / len(seconds) / median,
        "step_noise": bench.step_noise(losses),
        "losses": losses,
        "peak_memory_bytes": max(device_peak_bytes(), before),  # the system counts peaks a little late
        "before_bytes": before,
        "load_per_core": load,
    }


def measure_noise(settings: TrainSettings, request: Answer) -> Answer:
    """The gradient noise scale, with fresh weights and with those of a finished run."""
    table = bench.set_up_bench(settings)
    batches = bench.endless_batches(table)
    count, found = int(request["batches"]), {}
    for when, run in (("start", None), ("trained", request["run"])):
        if run is not None:
            trained = load_network(RunFolder(Path(run)).model)
            table.networks.volume.set_weights(trained.get_weights())
        products = bench.gradient_products(table, batches, count)
        scale = estimate_noise_scale(products, batch_size=settings.trainer.batch_size)
        found[when] = vars(scale)
    return found


def measure_fit(settings: TrainSettings, request: Answer) -> Answer:
    """Whether training steps of a batch size stay within the memory; a step of one volume comes before."""
    table = bench.set_up_bench(settings)
    one, examples = table.examples_per_volume, int(request["batch_size"]) * table.examples_per_volume
    batch = bench.random_batch(table, one)
    network = table.networks.trained
    bench.train_steps(network, iter([batch]), 1)  # threads and their arenas, before the limit counts
    limit = request["limit_bytes"]
    how = limit_memory(int(limit)) if limit is not None else "the device's own memory"
    full = bench.repeat_batch(batch, examples)
    try:
        bench.train_steps(network, iter([full, full]), 2)
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        return {"fits": False, "how": how, "reason": str(error).split("\n", maxsplit=1)[0][:200]}
    peak = device_peak_bytes()
    return {"fits": limit is None or peak <= limit, "how": how, "peak_memory_bytes": peak, "reason": ""}


def measure_networks(settings: TrainSettings, request: Answer) -> Answer:
    """For each of several models a print of its structure and first weights, or why it cannot be built."""
    cohort = gather_cohort(settings)
    return {
        "networks": {name: print_model(settings, cohort, model) for name, model in request["models"].items()}
    }


def measure_size(settings: TrainSettings, request: Answer) -> Answer:
    """Parameters, operations, memory and seconds per volume of a model on volumes of a scaled size."""
    load = load_per_core()
    table = bench.set_up_bench(settings, scale=float(request["scale"]))
    networks, steps = table.networks, int(request["steps"])
    volumes = settings.trainer.batch_size
    per_step = volumes * (settings.model.batch_factor if table.examples_per_volume > 1 else 1)
    examples = min(per_step, volumes * table.examples_per_volume)
    batch = bench.random_batch(table, examples)
    train = bench.time_calls(lambda: networks.trained.train_on_batch(*batch), steps)
    inputs = bench.random_volumes(table, volumes)
    infer = bench.time_calls(lambda: networks.volume.predict_on_batch(inputs), steps)
    cost = model_cost(networks.volume)
    return {
        "shape": list(table.cohort.shape),
        "parameters": cost.parameters,
        "flops": cost.flops,
        "activation_bytes": cost.activation_bytes,
        "train_seconds": train / examples * table.examples_per_volume,
        "infer_seconds": infer / volumes,
        "peak_memory_bytes": device_peak_bytes(),
        "load_per_core": load,
    }


MEASUREMENTS: dict[str, Callable[[TrainSettings, Answer], Answer]] = {
    "steps": measure_steps,
    "noise": measure_noise,
    "fit": measure_fit,
    "size": measure_size,
    "networks": measure_networks,
}


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


def print_model(settings: TrainSettings, cohort: Cohort, model: Mapping[str, Any]) -> dict[str, str]:
    """A digest of the network that a model's settings give under the training's seed.

    Args:
        settings: Of a training: precision and seed.
        cohort: Whose volumes the network takes.
        model: The fields of `ModelSettings`.

    Returns:
        `print`, and `problem`: why it cannot be built; one of them is empty.
    """
    import keras

    keras.utils.clear_session()  # names count from the start again
    prepare_runtime(precision=settings.precision, deterministic=settings.deterministic, seed=settings.seed)
    try:
        network = build_networks(ModelSettings(**model), cohort).volume
    except (
        ValueError
    ) as error:  # ours (SettingsError, LiftError) and those of Keras, about a shape for instance
        return {"print": "", "problem": str(error)}
    return {"print": print_network(network), "problem": ""}


def print_network(network: Any) -> str:  # noqa: ANN401 - untyped Keras
    """A digest of a network's layers, how they are joined, and every weight."""
    digest = hashlib.sha256(json.dumps(network.get_config(), sort_keys=True, default=str).encode())
    for weight in network.get_weights():
        digest.update(str(weight.shape).encode())
        digest.update(weight.tobytes())
    return digest.hexdigest()


Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NoiseScale:
    """The simple noise scale tr(S) / |G|^2, in examples, with its jackknife interval.

    Attributes:
        scale: Examples; inf where the mean gradient cannot be told from 0.
        low: Lower end of the 95 % interval.
        high: Upper end; inf where the data cannot bound it.
        variance: tr(S), the summed variance of one example's gradient.
        signal: |G|^2, the squared norm of the true gradient.
    """

    scale: float
    low: float
    high: float
    variance: float
    signal: float


def two_point_estimate(
    small: float, large: float, *, small_batch: int, large_batch: int
) -> tuple[float, float]:
    """Return unbiased estimates (tr(S), |G|^2) from the mean squared gradient norms at two batch sizes.

    E|G_B|^2 = |G|^2 + tr(S) / B, solved for both unknowns.

    >>> two_point_estimate(1 + 8 / 2, 1 + 8 / 4, small_batch=2, large_batch=4)
    (8.0, 1.0)
    """
    variance = (small - large) / (1 / small_batch - 1 / large_batch)
    signal = (large_batch * large - small_batch * small) / (large_batch - small_batch)
    return variance, signal


def estimate_noise_scale(gram: Floats, *, batch_size: int) -> NoiseScale:
    """Return the noise scale from the inner products of gradients of batches of one size.

    The mean of n batches' gradients is the gradient of one batch n times as large, so the two norms come from
    the same gradients: the diagonal gives the small batch's, the sum of all the large one's. The interval
    leaves out one batch at a time, on the logarithm of the scale.

    Args:
        gram: Inner products [n, n] float64 of n >= 3 gradients.
        batch_size: Examples in each batch.

    Raises:
        ValueError: Fewer than three batches.
    """
    n = len(gram)
    if gram.shape != (n, n) or n < 3:
        raise ValueError(f"expected a square of inner products of 3 batches or more, received {gram.shape}")
    variance, signal = _estimate(gram, batch_size)
    scale = _ratio(variance, signal)
    left_out = [_ratio(*_estimate(np.delete(np.delete(gram, i, 0), i, 1), batch_size)) for i in range(n)]
    low, high = _jackknife(scale, np.array(left_out))
    return NoiseScale(scale, low, high, variance, signal)


def _estimate(gram: Floats, batch_size: int) -> tuple[float, float]:
    n = len(gram)
    small, large = float(np.trace(gram)) / n, float(gram.sum()) / n**2
    return two_point_estimate(small, large, small_batch=batch_size, large_batch=n * batch_size)


def _ratio(variance: float, signal: float) -> float:
    return max(variance, 0.0) / signal if signal > 0 else math.inf


def _jackknife(scale: float, left_out: Floats) -> tuple[float, float]:
    if not (math.isfinite(scale) and scale > 0):
        return (0.0, math.inf)
    usable = left_out[np.isfinite(left_out) & (left_out > 0)]
    if len(usable) < len(left_out):
        return (float(usable.min()) if len(usable) else 0.0, math.inf)
    logs, n = np.log(usable), len(usable)
    error = math.sqrt((n - 1) / n * float(((logs - logs.mean()) ** 2).sum()))
    return scale * math.exp(-1.96 * error), scale * math.exp(1.96 * error)
