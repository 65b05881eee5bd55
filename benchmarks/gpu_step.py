"""Training steps on a GPU: throughput, memory, precision, the largest batch that fits, agreement.

    python benchmarks/gpu_step.py                             TensorFlow, all networks at 96^3 and 128^3
    KERAS_BACKEND=jax python benchmarks/gpu_step.py           the same on JAX; TensorFlow need not be there
    python benchmarks/gpu_step.py --network demo --side 16 --batch 2 --limit 4     a trial on a CPU

The demo's baseline, a lifted ResNet-18 and a lifted DenseNet-121. Needs Keras, its engine, rich, and of
this project the folder `models` and `step_networks.py` beside this file. Every measurement is a process of
its own: memory that one has taken, or an error of the device, cannot touch the next. Prints a Markdown table
and writes it as CSV.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

NETWORKS = ("demo", "resnet18", "densenet121")  # those of step_networks.py
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
COLUMNS = (
    "device",
    "backend",
    "network",
    "side",
    "precision",
    "batch",
    "ms_per_step",
    "volumes_per_s",
    "peak_mb",
    "largest_batch",
    "loss",
    "differs_from_float32",
)
WARM_UP, STEPS = 3, 10
SEEN = 2  # volumes whose logits are compared: few, so that they need less memory than a step
NO_MEMORY = ("RESOURCE_EXHAUSTED", "ResourceExhausted", "out of memory", "OOM when allocating")


class MeasurementError(RuntimeError):
    """A measurement that failed for another reason than memory, with the end of what it said."""


def main() -> int:
    """Measure, print a table, write the CSV file; return the exit status."""
    options = parse_arguments()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return 0
    rows: list[dict[str, Any]] = []
    for network in options.network:
        for side in options.side:
            rows += compare_precisions(network, side, options)
            write_csv(options.output, rows)  # after each network: a machine that is taken away loses nothing
    print_table(rows)
    print(f"Table in {options.output}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--side", nargs="+", type=int, default=[96, 128], help="voxels along each axis")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--batch", type=int, default=4, help="volumes of the timed steps")
    parser.add_argument("--limit", type=int, default=256, help="batches above this are not tried")
    parser.add_argument("--timeout", type=float, default=600, help="seconds of one measurement")
    parser.add_argument("--output", type=Path, default=Path("gpu_step.csv"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def compare_precisions(network: str, side: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row per precision, with the untrained network's logits compared to those in float32.

    Args:
        network: One of `NETWORKS`.
        side: Voxels along each axis.
        options: The command line's.
    """
    tasks = [{"network": network, "side": side, "precision": precision} for precision in options.precision]
    return with_agreement([measure_row(task, options) for task in tasks])


def measure_row(task: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Return the row of one network, side and precision; what cannot be measured stands in it as a word.

    Args:
        task: Network, side in voxels and precision.
        options: The command line's.
    """
    where = f"{task['network']} {task['side']}^3 {task['precision']}"

    def attempt(batch: int, steps: int) -> dict[str, Any] | str:
        try:
            found = in_child({**task, "batch": batch, "steps": steps}, timeout=options.timeout)
        except MeasurementError as error:  # a device may have no kernel for it: the others go on
            print(f"{where}, batch {batch}: {error}", file=sys.stderr)
            return "fails"
        return "does not fit" if found is None else found

    found = attempt(options.batch, STEPS)
    if isinstance(found, str):
        return {**task, "batch": options.batch, "ms_per_step": found}
    print(f"{where}: {found['volumes_per_s']} volumes/s", file=sys.stderr)
    largest = largest_that_fits(
        lambda batch: not isinstance(attempt(batch, 1), str), options.batch, options.limit
    )
    return {**task, **found, "largest_batch": largest}


def with_agreement(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with the farthest distance of their logits from float32's, in parts of the largest.

    Logits of inference, since dropout draws otherwise in another width, so that losses differ for that alone.

    >>> with_agreement([{"precision": "float32", "logits": [[0.5, -1.0]]}, {"logits": [[0.51, -1.0]]}])[1]
    {'logits': [[0.51, -1.0]], 'differs_from_float32': 0.01}
    """
    exact = next(
        (row["logits"] for row in rows if row.get("precision") == "float32" and "logits" in row), None
    )
    if exact is None:
        return rows
    return [
        {**row, "differs_from_float32": farthest(row["logits"], exact)} if "logits" in row else row
        for row in rows
    ]


def farthest(logits: list[list[float]], exact: list[list[float]]) -> float:
    """Return the largest difference of two tables of numbers in parts of the second's largest.

    Args:
        logits: [volumes][classes].
        exact: The same, in float32.
    """
    pairs = [
        pair for ours, theirs in zip(logits, exact, strict=True) for pair in zip(ours, theirs, strict=True)
    ]
    return round(max(abs(a - b) for a, b in pairs) / max(abs(b) for _, b in pairs), 5)


def largest_that_fits(fits: Callable[[int], bool], known: int, limit: int) -> int:
    """Return the largest batch up to a limit that fits: doubling until it does not, then halving the gap.

    >>> largest_that_fits(lambda batch: batch <= 37, known=4, limit=256)
    37
    >>> largest_that_fits(lambda batch: True, known=4, limit=24)
    24

    Args:
        fits: Whether a batch does.
        known: A batch that does.
        limit: No larger one is tried.
    """
    good, bad = known, None
    while bad is None and good < limit:
        trial = min(2 * good, limit)
        good, bad = (trial, None) if fits(trial) else (good, trial)
    while bad is not None and bad - good > 1:
        trial = (good + bad) // 2
        good, bad = (trial, bad) if fits(trial) else (good, trial)
    return good


def in_child(task: dict[str, Any], *, timeout: float) -> dict[str, Any] | None:
    """Measure in a process of its own; None where the memory did not suffice.

    Args:
        task: Network, side in voxels, precision, batch and number of steps, see `measure`.
        timeout: Seconds that it may take.

    Raises:
        MeasurementError: The process failed for another reason, or took longer.
    """
    command = [sys.executable, __file__, "--child", json.dumps(task)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(f"it took longer than {timeout:g} s") from error
    if done.returncode == 0:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    # The kernel kills what takes too much of a CPU's memory.
    if done.returncode == -9 or any(word in done.stderr for word in NO_MEMORY):
        return None
    raise MeasurementError(done.stderr[-2000:])


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Return time, memory and loss of training steps on made-up volumes, and the logits before them.

    Args:
        task: Network, side in voxels, precision, batch and number of steps; one step is not timed.

    Returns:
        Milliseconds per step, volumes per second, peak in MB (10^6 bytes), the last loss, and logits
        [volumes][classes].
    """
    import keras
    import numpy as np
    from step_networks import build_keras

    prepare_device()
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(task["precision"])
    model = build_keras(task["network"], task["side"], classes=2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    is_jax = keras.backend.backend() == "jax"
    model.compile(keras.optimizers.AdamW(1e-4), loss, jit_compile=is_jax)
    random = np.random.default_rng(0)
    batch, side = task["batch"], task["side"]
    voxels = random.normal(size=(batch, side, side, side, 1)).astype("float32")
    labels = np.arange(batch) % 2
    is_timed = task["steps"] > 1
    logits = model.predict_on_batch(voxels[:SEEN]).tolist() if is_timed else []
    seconds, last = [], 0.0
    for step in range(task["steps"] + (WARM_UP if is_timed else 0)):
        started = time.perf_counter()
        last = float(model.train_on_batch(voxels, labels))  # the loss is awaited: the device has finished
        if step >= WARM_UP or not is_timed:
            seconds.append(time.perf_counter() - started)
    median = float(np.median(seconds))
    return {
        "device": device_name(),
        "backend": keras.backend.backend(),
        "batch": batch,
        "ms_per_step": round(1000 * median, 2),
        "volumes_per_s": round(batch / median, 2),
        "peak_mb": round(peak_bytes() / 1e6),
        "loss": last,
        "logits": logits,
    }


def prepare_device() -> None:
    """Let the engine take memory as it needs it: only so is the peak that of the network."""
    if os.environ["KERAS_BACKEND"] == "jax":
        return  # its peak counts what arrays take, not what was set aside
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)  # noqa: FBT003 - the API's own form


def device_name() -> str:
    """Return the first GPU's name, or the number of the CPU's cores."""
    if os.environ["KERAS_BACKEND"] == "jax":
        import jax

        device = jax.local_devices()[0]
        return str(device.device_kind) if device.platform == "gpu" else cpu_name()
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    details = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
    return str(details.get("device_name", "GPU")) if gpus else cpu_name()


def cpu_name() -> str:
    """Return what stands in the table where there is no GPU."""
    return f"CPU, {os.cpu_count()} cores"


def peak_bytes() -> int:
    """Return the peak of the GPU's memory in use, or of this process's resident memory on a CPU."""
    import resource

    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if os.environ["KERAS_BACKEND"] == "jax":
        import jax

        statistics = jax.local_devices()[0].memory_stats() or {}
        return int(statistics.get("peak_bytes_in_use", resident))
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        return int(resident)
    return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows, whatever has been measured of each."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the rows as Markdown."""
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for row in rows:
        print("| " + " | ".join(str(row.get(column, "")) for column in COLUMNS) + " |")


if __name__ == "__main__":
    sys.exit(main())
