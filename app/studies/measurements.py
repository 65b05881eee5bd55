"""What can be measured of a training, by kind: each takes its settings and a request, and gives an answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from voxlift.app.networks.files import load_network
from voxlift.app.runs.folder import RunFolder
from voxlift.app.settings import TrainSettings
from voxlift.app.studies import bench, machine
from voxlift.app.studies.noise import estimate_noise_scale
from voxlift.app.studies.prints import print_model
from voxlift.app.subjects.cohort import gather_cohort
from voxlift.models.complexity import model_cost

Answer = dict[str, Any]


def measure_steps(settings: TrainSettings, request: Answer) -> Answer:
    """Speed, memory and noise of the loss over real training steps, the first two left out.

    With accumulated gradients a step is one of the optimiser: all of its batches.
    """
    load = machine.load_per_core()
    table = bench.set_up_bench(settings)
    before = machine.held_bytes()
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
        "device": machine.device_kind(),
        "seconds_per_step": median,
        "volumes_per_step": volumes / len(seconds),
        "volumes_per_second": volumes / len(seconds) / median,
        "step_noise": bench.step_noise(losses),
        "losses": losses,
        "peak_memory_bytes": max(
            machine.device_peak_bytes(), before
        ),  # the system counts peaks a little late
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
    how = machine.limit_memory(int(limit)) if limit is not None else "the device's own memory"
    full = bench.repeat_batch(batch, examples)
    try:
        bench.train_steps(network, iter([full, full]), 2)
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        return {"fits": False, "how": how, "reason": str(error).split("\n", maxsplit=1)[0][:200]}
    peak = machine.device_peak_bytes()
    return {"fits": limit is None or peak <= limit, "how": how, "peak_memory_bytes": peak, "reason": ""}


def measure_networks(settings: TrainSettings, request: Answer) -> Answer:
    """For each of several models a print of its structure and first weights, or why it cannot be built."""
    cohort = gather_cohort(settings)
    return {
        "networks": {name: print_model(settings, cohort, model) for name, model in request["models"].items()}
    }


def measure_size(settings: TrainSettings, request: Answer) -> Answer:
    """Parameters, operations, memory and seconds per volume of a model on volumes of a scaled size."""
    load = machine.load_per_core()
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
        "peak_memory_bytes": machine.device_peak_bytes(),
        "load_per_core": load,
    }


MEASUREMENTS: dict[str, Callable[[TrainSettings, Answer], Answer]] = {
    "steps": measure_steps,
    "noise": measure_noise,
    "fit": measure_fit,
    "size": measure_size,
    "networks": measure_networks,
}
