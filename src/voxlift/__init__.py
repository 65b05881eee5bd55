"""Voxlift: does a 3D network beat my 2D slice network on my data?

The names below are imported when they are first used, so that `import voxlift` brings in neither Keras nor
TensorFlow. Volumes are tensors `[depth, height, width, channels]`, batches `[batch, depth, height, width,
channels]`; spacings are in mm, ordered depth, height, width; affines map voxel indices to world mm, RAS+.

Networks
    plan_lift            Plan the lift of a Keras 2D network: `print(plan)` shows it, `plan.build()` builds it.
    to_3d                Lift in one call.
    register_lift_rule   Add the rule for a layer of your own.
    verify_lift          Prove a planned lift on slices repeated along depth.
    LiftError            All layers and settings that cannot be lifted.
    keras                Keras, imported without TensorFlow's start lines; a failed import shows them.

Volumes
    load_volume          Read an image file: voxels [i, j, k] and the affine.
    prepare_volume       Read and preprocess an image file: voxels on the network's grid, and the affine.
    prepare_tensor       The same as float32 [depth, height, width, channels], as a network takes it.
    write_phantom        Write a small synthetic data set to try things on.
    Preprocess           The settings of both: spacing, shape, intensities.

Runs
    open_run             Open a finished run: settings, history, metrics, predictions, its network.
    Run                  What `open_run` returns; it predicts and explains new images.
    train                Train a model, as `voxlift-train` does.
    compare              Compare models, as `voxlift-compare` does.
    evaluate             Score external data with a finished run, as `voxlift-evaluate` does.
    study                Run a study, as `voxlift-study` does.
    show_volume          Show a volume in a notebook, with a map over it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

    from voxlift.app.api import compare, evaluate, study, train
    from voxlift.app.inference.run import Run, open_run
    from voxlift.app.report.viewer import show_volume
    from voxlift.data_pipelines.phantom.write import write_phantom
    from voxlift.data_pipelines.preprocess.prepare import prepare_tensor, prepare_volume
    from voxlift.data_pipelines.preprocess.settings import Preprocess
    from voxlift.data_pipelines.readers import load_volume
    from voxlift.models.lifting import LiftError, plan_lift, register_lift_rule, to_3d, verify_lift

__version__ = "0.3.0"

__all__ = [
    "LiftError",
    "Preprocess",
    "Run",
    "compare",
    "evaluate",
    "keras",
    "load_volume",
    "open_run",
    "plan_lift",
    "prepare_tensor",
    "prepare_volume",
    "register_lift_rule",
    "show_volume",
    "study",
    "to_3d",
    "train",
    "verify_lift",
    "write_phantom",
]

_MODULES = {
    "LiftError": "models.lifting",
    "Preprocess": "data_pipelines.preprocess.settings",
    "Run": "app.inference.run",
    "compare": "app.api",
    "evaluate": "app.api",
    "load_volume": "data_pipelines.readers",
    "open_run": "app.inference.run",
    "plan_lift": "models.lifting",
    "prepare_tensor": "data_pipelines.preprocess.prepare",
    "prepare_volume": "data_pipelines.preprocess.prepare",
    "register_lift_rule": "models.lifting",
    "show_volume": "app.report.viewer",
    "study": "app.api",
    "to_3d": "models.lifting",
    "train": "app.api",
    "verify_lift": "models.lifting",
    "write_phantom": "data_pipelines.phantom.write",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever stands under the name
    """Import a public name when it is first used (PEP 562)."""
    if name == "keras":
        importlib.import_module("voxlift.app.runtime.setup").import_quietly()
        return importlib.import_module(name)
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, for completion."""
    return sorted([*globals(), *__all__])
