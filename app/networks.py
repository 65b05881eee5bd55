"""From the model settings to networks: the one that is trained, and the one that scores volumes.

For a volume model they are the same network, lifted from the 2D baseline. For a slice model the 2D network
is trained on slices, and the volume network wraps it (same weights): so evaluation, prediction and export
never ask which model they hold.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cohort import Cohort
from app.devices import backend_name, gpu_capability
from app.pretrained import adaptations, load_trained, trained_source
from app.settings import ModelSettings, SettingsError

if TYPE_CHECKING:
    from models.lifting import LiftPlan

log = logging.getLogger("voxlift")

CONFIGURED = ("cnn", "resnet")


@dataclass(frozen=True)
class Networks:
    """`trained` takes what training feeds (slices or volumes); `volume` takes [B, D, H, W, C]."""

    trained: Any
    volume: Any


def is_trained_on_slices(model: ModelSettings) -> bool:
    """Whether training sees single slices; learned attention over slices needs whole volumes."""
    return model.kind == "slice" and model.aggregate != "attention"


def build_networks(model: ModelSettings, cohort: Cohort) -> Networks:
    """The networks that the settings ask for, for this cohort's volume shape and classes.

    Raises:
        SettingsError, LiftError: the settings name something that cannot be built, with the way out.
    """
    if model.kind == "slice":
        return _slice_networks(model, cohort)
    return _volume_networks(model, cohort)


def _slice_networks(model: ModelSettings, cohort: Cohort) -> Networks:
    from models.aggregation import wrap_slices

    plane = _plane(cohort.shape[:3], model.axis)
    network = build_2d(model, cohort, (*plane, cohort.shape[3] * model.slab))
    wrapped = wrap_slices(
        network,
        input_shape=cohort.shape,
        axis=model.axis,
        slices=model.slices,
        aggregate=model.aggregate,
        slab=model.slab,
    )
    return Networks(network if is_trained_on_slices(model) else wrapped, wrapped)


def _volume_networks(model: ModelSettings, cohort: Cohort) -> Networks:
    source = trained_source(model.baseline)
    if source is None:
        _, height, width, channels = cohort.shape
        return lift_networks(plan_volume(model, cohort, build_2d(model, cohort, (height, width, channels))))
    network = load_trained(source)
    return lift_networks(plan_volume(model, cohort, network, **adaptations(network, source, cohort)))


def plan_volume(model: ModelSettings, cohort: Cohort, network: Any, **changes: Any) -> LiftPlan:  # noqa: ANN401 - untyped Keras, and what plan_lift takes
    """The plan that lifts a 2D network for this cohort's volumes; weights are read when it is built.

    Raises:
        LiftError: layers or settings stand in the way.
    """
    from models.lifting import plan_lift
    from models.lifting.depth import with_depth_kernel

    policy: Any = model.depth_policy
    if model.depth_kernel is not None:
        policy = with_depth_kernel(policy, model.depth_kernel)
    if model.filter_scale != 1 and not is_built_here(model):
        changes["filters"] = model.filter_scale
    return plan_lift(
        network,
        depth=cohort.shape[0],
        depth_policy=policy,
        init=model.init,
        spacing=cohort.preprocess.spacing,
        **changes,
    )


def lift_networks(plan: LiftPlan) -> Networks:
    """The lifted network, which is trained on volumes and scores them."""
    lifted = plan.build()
    _protect_on_cpu(lifted)
    return Networks(lifted, lifted)


def _protect_on_cpu(network: Any) -> None:  # noqa: ANN401 - untyped Keras
    if backend_name() == "tensorflow" and gpu_capability() is None:
        names = protect_shallow_convolutions(network)
        if names:
            log.info("float32 instead of bfloat16 for convolutions on few slices: %s", ", ".join(names))
        pools = protect_pooling(network)
        if pools:
            log.info(
                "float32 instead of float16 for pooling, which has no other kernel: %s", ", ".join(pools)
            )


def build_2d(model: ModelSettings, cohort: Cohort, input_shape: tuple[int, int, int]) -> Any:  # noqa: ANN401 - Keras ships no types
    """The 2D baseline for planes of `input_shape` (height, width, channels)."""
    from models.baselines import build_baseline

    options: dict[str, Any] = {"input_shape": input_shape, "classes": len(cohort.classes)}
    if is_built_here(model):
        filters = tuple(max(1, round(count * model.filter_scale)) for count in model.filters)
        options |= {"filters": filters, "dropout": model.dropout, "head": model.head}
    try:
        return build_baseline(_baseline_source(model.baseline), **options)
    except ValueError as error:
        if type(error).__name__ == "LiftError":
            raise
        raise SettingsError(f"model.baseline={model.baseline}: {error}") from error


def is_built_here(model: ModelSettings) -> bool:
    """Whether the 2D network is one whose filters and head the settings decide."""
    return model.baseline in CONFIGURED


def _baseline_source(baseline: str) -> str:
    """A run folder stands for the network in it."""
    folder = Path(baseline).expanduser()
    return str(folder / "model.keras") if folder.is_dir() else baseline


def _plane(shape: tuple[int, ...], axis: str) -> tuple[int, int]:
    """Sides of the slices along an axis; `all` cuts three ways and needs a cube.

    Raises:
        SettingsError: three ways through a volume with unequal sides.
    """
    depth, height, width = shape
    if axis == "all" and len({depth, height, width}) > 1:
        raise SettingsError(
            f"model.axis=all: expected a cubic preprocess.shape; received {depth}x{height}x{width}. "
            "Choose one axis or a cubic shape."
        )
    return {
        "depth": (height, width),
        "height": (depth, width),
        "width": (depth, height),
        "all": (height, width),
    }[axis]


def protect_shallow_convolutions(network: Any) -> list[str]:  # noqa: ANN401 - untyped Keras
    """Let 3D convolutions on few slices compute in float32 instead of bfloat16; the names of those changed.

    TensorFlow's bfloat16 kernel for the filter gradient reads memory that nobody wrote where the depth is not
    larger than the kernel's: seen as NaN after a few steps (2.21, AVX512-BF16; depth 2 under a kernel of 3,
    depth 4 under one of 5). Layers that take another route to that gradient are left alone.
    """
    import keras

    from models.layers.few_positions import FewPositionsConv3D, is_shallow

    changed = []
    for layer in network._flatten_layers():  # noqa: SLF001 - Keras has no public walk into nested networks
        is_bfloat = getattr(layer, "compute_dtype", None) == "bfloat16"
        if not (isinstance(layer, keras.layers.Conv3D) and is_bfloat):
            continue
        is_safe = isinstance(layer, FewPositionsConv3D) and layer.has_own_routes
        if not is_safe and is_shallow(layer.input.shape[1], layer.kernel_size[0]):
            layer.dtype_policy = "float32"
            changed.append(str(layer.name))
    return changed


def protect_pooling(network: Any) -> list[str]:  # noqa: ANN401 - untyped Keras
    """Let 3D pooling compute in float32 instead of float16; the names of those changed.

    TensorFlow has no float16 kernel of MaxPool3D and AvgPool3D for CPUs (2.21), alone among the operations of
    our networks.
    """
    import keras

    changed = []
    for layer in network._flatten_layers():  # noqa: SLF001 - as above
        is_pool = isinstance(layer, keras.layers.MaxPooling3D | keras.layers.AveragePooling3D)
        if is_pool and layer.compute_dtype == "float16":
            layer.dtype_policy = "float32"
            changed.append(str(layer.name))
    return changed
