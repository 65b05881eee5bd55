"""What a training would need by `preprocess.budget`, measured before any volume is prepared.

The networks are built and stepped on random voxels in a child process, `python -m
voxlift.app.training.preflight.budgets FOLDER`: an audit or a comparison keeps its memory and its precision.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from voxlift.app.config import TrainSettings
from voxlift.app.files import read_json, write_json
from voxlift.app.progress import phase, print_line
from voxlift.app.runs.configuration import load_settings, save_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runtime.child import python_module, run_child

SECONDS = 60.0  # of all measurements, about
LIMIT = 180.0  # seconds after which a slow machine has measured enough; what is done counts
STEPS = 3
SHORT_VOXELS = 1e7  # an epoch of fewer is a matter of seconds, not worth measuring
REQUEST, ANSWER = "request.json", "answer.json"


@dataclass(frozen=True)
class BudgetCost:
    """What one grid costs a model.

    Attributes:
        model: Its name.
        budget: `preprocess.budget`.
        shape: Depth, height and width in voxels.
        memory: Bytes of a training step.
        epoch_seconds: Of the training steps of an epoch, without reading and scoring.
        is_measured: Whether this grid was measured; else the seconds of a smaller one, scaled by voxels.
    """

    model: str
    budget: int
    shape: tuple[int, ...]
    memory: int
    epoch_seconds: float
    is_measured: bool


def measure_budgets(
    trainings: Mapping[str, TrainSettings],
    grids: Mapping[int, Sequence[int]],
    *,
    volumes: int,
    channels: int = 1,
) -> list[BudgetCost]:
    """Return memory and time by model and budget; nothing where an epoch is a matter of seconds.

    Args:
        trainings: Settings by name of the model; those without a network of images alone are left out.
        grids: Shape [depth, height, width] by budget.
        volumes: Of an epoch.
        channels: Of a volume.
    """
    largest = max((math.prod(shape) for shape in grids.values()), default=0)
    own = {
        name: one for name, one in trainings.items() if one.model.has_network and not one.model.join_columns
    }
    if not own or volumes * largest < SHORT_VOXELS:
        return []
    with TemporaryDirectory() as name, phase("Measuring time and memory by preprocess.budget"):
        folder = Path(name)
        for model, settings in own.items():
            (folder / model).mkdir()
            save_settings(settings, RunFolder(folder / model))
        request = {"grids": {str(key): list(shape) for key, shape in grids.items()}}
        write_json(folder / REQUEST, {**request, "volumes": volumes, "channels": channels})
        command = python_module("voxlift.app.training.preflight.budgets", name)
        status, reason = run_child(command, log=folder / "log.txt", seconds=LIMIT)
        answer = read_json(folder / ANSWER)["costs"] if (folder / ANSWER).exists() else []
    if status:
        print_line(f"Time and memory by preprocess.budget were not measured for every model: {reason}")
    return [BudgetCost(**{**one, "shape": tuple(one["shape"])}) for one in answer]


def describe_costs(costs: Sequence[BudgetCost]) -> list[str]:
    """Return a line for each model, with what each of its grids needs; equal grids are named together.

    >>> describe_costs([BudgetCost("volume3d", 64, (64, 64, 64), 10**9, 30.0, True)])
    ['volume3d by preprocess.budget: 64 (64x64x64): 1.00 GB a step, 30 s an epoch']
    """
    lines = []
    for model in dict.fromkeys(one.model for one in costs):
        by_shape: dict[tuple[int, ...], list[BudgetCost]] = {}
        for one in costs:
            if one.model == model:
                by_shape.setdefault(one.shape, []).append(one)
        lines.append(f"{model} by preprocess.budget: {'; '.join(map(_describe_grid, by_shape.values()))}")
    return lines


def _describe_grid(same: Sequence[BudgetCost]) -> str:
    from voxlift.app.progress import format_seconds

    first, budgets = same[0], " or ".join(str(one.budget) for one in same)
    seconds = first.epoch_seconds
    spent = format_seconds(seconds) if seconds >= 10 else f"{seconds:.2g} s"
    memory = f"{first.memory / 1e9:.2f} GB" if first.memory >= 1e8 else f"{first.memory / 1e6:.0f} MB"
    return f"{budgets} ({'x'.join(map(str, first.shape))}): {memory} a step, {spent} an epoch"


def main() -> int:
    """Measure what the folder that the command line names asks for."""
    folder = Path(sys.argv[1])
    request = read_json(folder / REQUEST)
    grids = {int(key): tuple(shape) for key, shape in request["grids"].items()}
    configs = sorted(folder.glob("*/config.yaml"))
    costs: list[dict[str, Any]] = []
    for config in configs:
        settings = load_settings(RunFolder(config.parent))
        costs += _measure_model(
            config.parent.name,
            settings,
            grids,
            volumes=int(request["volumes"]),
            channels=int(request["channels"]),
            seconds=SECONDS / len(configs),
        )
        write_json(folder / ANSWER, {"costs": costs})
    return 0


def _measure_model(
    name: str,
    settings: TrainSettings,
    grids: Mapping[int, tuple[int, ...]],
    *,
    volumes: int,
    channels: int,
    seconds: float,
) -> list[dict[str, Any]]:
    """Measure the grids from the smallest on while the time lasts; the others are scaled by their voxels."""
    from voxlift.app.runtime.setup import import_user_modules, prepare_runtime

    prepare_runtime(precision=settings.precision, deterministic=False, seed=settings.seed)
    import_user_modules(settings.custom)
    began, costs, measured = time.perf_counter(), [], dict[tuple[int, ...], float]()
    for budget, shape in sorted(grids.items(), key=lambda pair: math.prod(pair[1])):
        step, per_epoch, memory = _prepare_step(settings, (shape[0], shape[1], shape[2], channels), volumes)
        if shape not in measured:
            last = max(measured, key=math.prod, default=None)
            scaled = None if last is None else measured[last] * math.prod(shape) / math.prod(last)
            left = seconds - (time.perf_counter() - began)
            if scaled is None or scaled / per_epoch * (STEPS + 1) < left:
                measured[shape] = per_epoch * _time_step(step)
        value = measured.get(shape, scaled or 0.0)
        costs.append(
            {
                "model": name,
                "budget": budget,
                "shape": list(shape),
                "memory": memory,
                "epoch_seconds": value,
                "is_measured": shape in measured,
            }
        )
    return costs


def _time_step(step: Any) -> float:  # noqa: ANN401 - a function of untyped Keras
    """Return the seconds of the fastest of a few steps; the first one compiles."""
    found = []
    for _ in range(STEPS + 1):
        started = time.perf_counter()
        step()
        found.append(time.perf_counter() - started)
    return min(found[1:])


def _prepare_step(
    settings: TrainSettings, shape: tuple[int, int, int, int], volumes: int
) -> tuple[Any, float, int]:
    """Return a function that takes a training step on random voxels, steps of an epoch, and bytes of one."""
    import keras

    from voxlift.app.training.networks import InputSpec, build_networks, is_trained_on_slices
    from voxlift.models.layers.slices import select_slices
    from voxlift.models.memory import training_memory

    keras.utils.clear_session()
    model, examples, batch = settings.model, volumes, settings.trainer.batch_size
    networks = build_networks(model, InputSpec(shape, classes=("first", "second")))
    if is_trained_on_slices(model):
        chosen = select_slices(shape, axis=model.axis, slices=model.slices, slab=model.slab)
        examples, batch = volumes * sum(one.count for one in chosen), batch * model.batch_factor
    batch, network = max(1, min(batch, examples)), networks.trained
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(optimizer=keras.optimizers.AdamW(), loss=loss)
    rng = np.random.default_rng(0)
    voxels = rng.random((batch, *network.input_shape[1:]), dtype=np.float32)
    labels = rng.integers(0, 2, batch)
    need = training_memory(network).total(batch)
    return lambda: network.train_on_batch(voxels, labels), max(1.0, examples / batch), need


if __name__ == "__main__":
    sys.exit(main())
