"""From the model settings to networks: the one that is trained, and the one that scores volumes.

For a volume model they are the same network, lifted from the 2D baseline. For a slice model the 2D network
is trained on slices, and the volume network wraps it (same weights): so evaluation, prediction and export
never ask which model they hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlift.app.config import ModelSettings, SettingsError
from voxlift.app.data.cohort import Cohort
from voxlift.app.runtime.kernels import protect_training
from voxlift.app.training.pretrained import adaptations, load_trained, trained_source

if TYPE_CHECKING:
    from voxlift.models.lifting import LiftPlan


CONFIGURED = ("cnn", "resnet")


@dataclass(frozen=True)
class Networks:
    """`trained` takes what training feeds (slices or volumes); `volume` takes [B, D, H, W, C].

    They share their weights, but where the trained one is spread over several hosts: there `volume` shares
    them with `twin`, which is like the trained one.
    """

    trained: Any
    volume: Any
    twin: Any = None

    @property
    def own(self) -> Any:  # noqa: ANN401 - untyped Keras
        """The trained network, or its twin where the trained one does not lie on this host alone."""
        return self.trained if self.twin is None else self.twin


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
    from voxlift.models.aggregation import wrap_slices

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
    from voxlift.models.lifting import plan_lift
    from voxlift.models.lifting.depth import with_depth_kernel

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
    protect_training(lifted)
    return Networks(lifted, lifted)


def build_2d(model: ModelSettings, cohort: Cohort, input_shape: tuple[int, int, int]) -> Any:  # noqa: ANN401 - Keras ships no types
    """The 2D baseline for planes of `input_shape` (height, width, channels).

    Raises:
        SettingsError: `model.baseline` cannot be built for these planes.
        LiftError: a network that exists cannot be cut to these classes.
    """
    from voxlift.models.baselines import build_baseline

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
