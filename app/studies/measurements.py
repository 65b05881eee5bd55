"""Measure a training in a process of its own: `python -m voxlift.app.studies.measurements FOLDER`.

The folder holds `config.yaml` (a training's settings) and `request.json`; the answer goes to `answer.json`.
If the process runs out of memory, the study itself is not affected.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import tensorflow as tf

from voxlift.app.config import ModelSettings, TrainSettings
from voxlift.app.data.cohort import Cohort, gather_cohort
from voxlift.app.files import read_json, write_json
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder, load_network
from voxlift.app.runtime.devices import read_peak_memory_bytes
from voxlift.app.runtime.setup import import_user_modules, prepare_runtime
from voxlift.app.studies.gradient_noise import estimate_noise_scale, gradient_products
from voxlift.app.studies.measured_training import (
    build_measured_training,
    estimate_step_noise,
    random_batch,
    random_volumes,
    repeat_batches,
    repeat_examples,
    time_calls,
    train_steps,
)
from voxlift.app.training.networks import build_networks, input_spec
from voxlift.models.complexity import model_cost

Answer = dict[str, Any]


def main() -> int:
    """Answer the request in the folder that the command line names."""
    folder = Path(sys.argv[1])
    request = read_json(folder / "request.json")
    settings = load_settings(RunFolder(folder))
    import_user_modules(settings.custom)  # the study has just written them
    write_json(folder / "answer.json", MEASUREMENTS[request["kind"]](settings, request))
    return 0


def measure_steps(settings: TrainSettings, request: Answer) -> Answer:
    """Measure speed, memory and loss of real training steps; two steps before them are not counted.

    With accumulated gradients a step is one of the optimiser, with all of its microbatches.
    """
    load = load_per_core()
    training = build_measured_training(settings)
    before = current_memory_bytes()
    network = training.networks.trained
    batches, microbatches = repeat_batches(training), settings.trainer.accumulate
    train_steps(network, batches, 2 * microbatches)  # tracing, and the first use of memory
    seconds, losses, examples = train_steps(
        network, batches, int(request["steps"]), microbatches=microbatches
    )
    volumes = examples / training.examples_per_volume
    median = sorted(seconds)[len(seconds) // 2]
    return {
        "train_volumes": len(training.data.cohort.indices("train")),
        "steps_per_epoch": training.data.steps_per_epoch,
        "device": device_type(),
        "seconds_per_step": median,
        "volumes_per_step": volumes / len(seconds),
        "volumes_per_second": volumes / len(seconds) / median,
        "step_noise": estimate_step_noise(losses),
        "losses": losses,
        "peak_memory_bytes": max(device_peak_bytes(), before),  # the system counts peaks a little late
        "before_bytes": before,
        "load_per_core": load,
    }


def measure_noise(settings: TrainSettings, request: Answer) -> Answer:
    """Measure the gradient noise scale, with initial weights and with those of a finished run."""
    training = build_measured_training(settings)
    batches = repeat_batches(training)
    found = {}
    for when, run in (("start", None), ("trained", request["run"])):
        if run is not None:
            trained = load_network(RunFolder(Path(run)).model)
            training.networks.volume.set_weights(trained.get_weights())
        products = gradient_products(training.networks.trained, batches, int(request["batches"]))
        found[when] = vars(estimate_noise_scale(products, batch_size=settings.trainer.batch_size))
    return found


def measure_fit(settings: TrainSettings, request: Answer) -> Answer:
    """Measure whether training steps of a batch size stay within the memory limit."""
    training = build_measured_training(settings, scale=1.0)
    network, count = training.networks.trained, training.examples_per_volume
    one = random_batch(training, count)
    train_steps(network, iter([one]), 1)  # threads take their memory before the limit is set
    limit = request["limit_bytes"]
    how = limit_memory(int(limit)) if limit is not None else "the device's own memory"
    full = repeat_examples(one, int(request["batch_size"]) * count)
    try:
        train_steps(network, iter([full, full]), 2)
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        return {"fits": False, "how": how, "reason": str(error).split("\n", maxsplit=1)[0][:200]}
    peak = device_peak_bytes()
    return {"fits": limit is None or peak <= limit, "how": how, "peak_memory_bytes": peak, "reason": ""}


def measure_size(settings: TrainSettings, request: Answer) -> Answer:
    """Measure parameters, operations, memory and seconds per volume on volumes of a scaled size."""
    load = load_per_core()
    training = build_measured_training(settings, scale=float(request["scale"]))
    networks, steps = training.networks, int(request["steps"])
    volumes, per_volume = settings.trainer.batch_size, training.examples_per_volume
    per_step = volumes * (settings.model.batch_factor if per_volume > 1 else 1)
    examples = min(per_step, volumes * per_volume)
    batch, inputs = random_batch(training, examples), random_volumes(training, volumes)
    train = time_calls(lambda: networks.trained.train_on_batch(*batch), steps)
    infer = time_calls(lambda: networks.volume.predict_on_batch(inputs), steps)
    cost = model_cost(networks.volume)
    return {
        "shape": list(training.data.cohort.shape),
        "parameters": cost.parameters,
        "flops": cost.flops,
        "activation_bytes": cost.activation_bytes,
        "train_seconds": train / examples * per_volume,
        "infer_seconds": infer / volumes,
        "peak_memory_bytes": device_peak_bytes(),
        "load_per_core": load,
    }


def measure_networks(settings: TrainSettings, request: Answer) -> Answer:
    """Return for each of several models a fingerprint of its network, or why it cannot be built."""
    cohort = gather_cohort(settings)
    models = request["models"]
    return {"networks": {name: fingerprint_model(settings, cohort, model) for name, model in models.items()}}


MEASUREMENTS: dict[str, Callable[[TrainSettings, Answer], Answer]] = {
    "steps": measure_steps,
    "noise": measure_noise,
    "fit": measure_fit,
    "size": measure_size,
    "networks": measure_networks,
}


def fingerprint_model(settings: TrainSettings, cohort: Cohort, model: Mapping[str, Any]) -> dict[str, str]:
    """Return a digest of the network that a model's settings build with the training's seed.

    Args:
        settings: Settings of a training: precision and seed.
        cohort: Cohort whose volumes the network takes.
        model: Fields of `ModelSettings`.

    Returns:
        `fingerprint`, the digest, and `problem`, why the network cannot be built; one of them is empty.
    """
    import keras

    keras.utils.clear_session()  # automatic layer names start from the beginning
    prepare_runtime(precision=settings.precision, deterministic=settings.deterministic, seed=settings.seed)
    try:
        network = build_networks(ModelSettings(**model), input_spec(cohort)).volume
    except ValueError as error:  # SettingsError, LiftError, and errors of Keras about shapes
        return {"fingerprint": "", "problem": str(error)}
    return {"fingerprint": fingerprint_network(network), "problem": ""}


def fingerprint_network(network: Any) -> str:  # noqa: ANN401 - untyped Keras
    """Return a digest of a network's layers, their connections, and every weight."""
    digest = hashlib.sha256(json.dumps(network.get_config(), sort_keys=True, default=str).encode())
    for weight in network.get_weights():
        digest.update(str(weight.shape).encode())
        digest.update(weight.tobytes())
    return digest.hexdigest()


def device_type() -> str:
    """Return the type of device that computes the training, `GPU` or `CPU`."""
    return "GPU" if tf.config.list_physical_devices("GPU") else "CPU"


def device_peak_bytes() -> int:
    """Return the GPU's peak memory where there is one, else the peak resident memory of this process."""
    if device_type() == "GPU":
        return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
    return read_peak_memory_bytes()


def current_memory_bytes() -> int:
    """Return what is in use now of the memory whose peak `device_peak_bytes` returns."""
    if device_type() == "GPU":
        return int(tf.config.experimental.get_memory_info("GPU:0")["current"])
    return int(psutil.Process().memory_info().rss)


def load_per_core() -> float:
    """Return the load average of the last minute per core, 1 when all cores are busy."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def limit_memory(limit: int) -> str:
    """Limit the resident memory of this process from now on, and return a description of the method.

    Linux can limit the address space only: what is mapped but not in use yet is added to the limit. Native
    code that gets no memory may crash; this leaves no core file.

    Args:
        limit: Resident memory in bytes.
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


if __name__ == "__main__":
    sys.exit(main())
