"""Compare the estimated memory of a training step with the measured peak, for lifted networks on a CPU.

    python benchmarks/training_memory.py --network cnn resnet ResNet50 DenseNet121 --side 48 --batch 2 8

Each row is measured in a process of its own: the peak of resident memory (Linux's VmHWM) in three steps of
AdamW, minus the resident memory before them. `per sample` is the growth between the smallest and the largest
batch, where the memory of the framework itself cancels out.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

MB = 1e6


def main() -> int:
    """Print the table, and return the exit status."""
    options = parse_arguments()
    if options.child:
        print(json.dumps(measure(options.network[0], options.side, options.batch[0], options.precision[0])))
        return 0
    print("| network | precision | batch | estimate, MB | measured, MB | estimate / measured |")
    print("|---|---|---|---|---|---|")
    for network in options.network:
        for precision in options.precision:
            compare(network, precision, side=options.side, batches=options.batch)
    return 0


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", nargs="+", default=["cnn", "resnet", "ResNet50", "DenseNet121"])
    parser.add_argument("--precision", nargs="+", default=["float32", "mixed_bfloat16"])
    parser.add_argument("--side", type=int, default=48, help="voxels along each axis")
    parser.add_argument("--batch", nargs="+", type=int, default=[2, 8])
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def compare(network: str, precision: str, *, side: int, batches: list[int]) -> None:
    """Print one row per batch, and one for the growth per sample.

    Args:
        network: Name of the 2D network.
        precision: A dtype policy of Keras.
        side: Voxels along each axis.
        batches: Volumes per step, one row each.
    """
    results = [measure_in_child(network, precision, side, batch) for batch in sorted(batches)]
    for result in results:
        print_row(network, precision, str(result["batch"]), result["estimate"], result["measured"])
    if len(results) > 1:
        first, last = results[0], results[-1]
        samples = last["batch"] - first["batch"]
        growth = [(last[key] - first[key]) / samples for key in ("estimate", "measured")]
        print_row(network, precision, "per sample", *growth)


def print_row(network: str, precision: str, batch: str, estimate: float, measured: float) -> None:
    """Print one row of the table.

    Args:
        network: First column.
        precision: Second column.
        batch: Third column.
        estimate: In bytes.
        measured: In bytes.
    """
    ratio = estimate / measured
    print(
        f"| {network} | {precision} | {batch} | {estimate / MB:.0f} | {measured / MB:.0f} | {ratio:.2f} |",
        flush=True,
    )


def measure_in_child(network: str, precision: str, side: int, batch: int) -> dict[str, Any]:
    """Return the result of `measure` in a process of its own: a process has one peak.

    Args:
        network: Name of the 2D network.
        precision: A dtype policy of Keras.
        side: Voxels along each axis.
        batch: Volumes per step.

    Raises:
        SystemExit: If it failed, with the end of its error output.
    """
    options = ["--network", network, "--precision", precision, "--side", str(side), "--batch", str(batch)]
    command = [sys.executable, __file__, "--child", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(network: str, side: int, batch: int, precision: str) -> dict[str, float]:
    """Return batch, estimate and measured peak of three training steps, in bytes.

    Args:
        network: Name of the 2D network.
        side: Voxels along each axis.
        batch: Volumes per step.
        precision: A dtype policy of Keras.
    """
    import keras
    import numpy as np

    from voxlift.models.memory import training_memory

    keras.config.set_dtype_policy(precision)
    model = build(network, side)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    on_tensorflow = keras.backend.backend() == "tensorflow"
    model.compile(keras.optimizers.AdamW(1e-4), loss, jit_compile=not on_tensorflow)
    voxels = np.random.default_rng(0).normal(size=(batch, side, side, side, 1)).astype("float32")
    before = reset_peak()
    for _ in range(3):
        model.train_on_batch(voxels, np.zeros(batch, int))
    memory = training_memory(model)
    # The weights are in memory before the first step.
    return {
        "batch": batch,
        "estimate": memory.total(batch) - memory.weights,
        "measured": peak() - before,
    }


def build(network: str, side: int) -> Any:  # noqa: ANN401 - untyped Keras
    """Return the lifted network."""
    import keras

    from voxlift.models import plan_lift
    from voxlift.models.baselines import build_baseline

    if network in {"cnn", "resnet"}:
        return plan_lift(build_baseline(network, input_shape=(side, side, 1), classes=2), depth=side).build()
    source = getattr(keras.applications, network)(weights=None, input_shape=(side, side, 3), classes=2)
    return plan_lift(source, depth=side, channels=1, logits=True).build()


def reset_peak() -> int:
    """Reset the peak to the resident memory of now, and return it."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """Return the peak of resident memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) * 1024


if __name__ == "__main__":
    sys.exit(main())
