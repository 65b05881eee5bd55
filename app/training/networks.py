"""From the model settings to networks: the one that is trained, and the one that scores volumes.

For a volume model they are the same network, lifted from the 2D baseline. For a slice model the 2D network
is trained on slices, and the volume network wraps it with shared weights, so that evaluation, prediction and
export need not know which kind of model they hold.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlift.app.config import ModelSettings, PreprocessSettings, SettingsError
from voxlift.app.runs.folder import load_network
from voxlift.app.runtime.setup import protect_training
from voxlift.app.tasks.base import Head, Task, find_task
from voxlift.app.training.baseline import is_volume_file, load_trained, prepare_trained, trained_source
from voxlift.app.training.builder import build_users_network

if TYPE_CHECKING:
    from voxlift.app.data.cohort import Cohort
    from voxlift.data_pipelines.preprocess.settings import Preprocess
    from voxlift.models.lifting import LiftPlan

log = logging.getLogger("voxlift")

STANDARD_RANGE = 3.0  # standard deviations that become black and white for trained weights


@dataclass(frozen=True)
class InputSpec:
    """What networks are built for.

    Attributes:
        shape: Depth, height, width and channels of a prepared volume.
        classes: Names in index order.
        spacing: Depth, height and width of a voxel in mm; None where every file keeps its own.
        preprocess: With the steps that decide the range of the voxels; only `model.weights` needs it.
        task: What is predicted.
        head: The end of the network, with what is known from training subjects; None: a logit per class.
        columns: Features of columns of the table that are joined; 0: the images alone.
    """

    shape: tuple[int, int, int, int]
    classes: tuple[str, ...]
    spacing: tuple[float, float, float] | None = None
    preprocess: PreprocessSettings | Preprocess | None = None
    task: Task = field(default_factory=lambda: find_task("classes"))
    head: Head | None = None
    columns: int = 0

    @property
    def units(self) -> int:
        """Outputs of the dense layer of a head."""
        return len(self.classes) if self.head is None else self.head.units

    def start(self, network: Any) -> None:  # noqa: ANN401 - untyped Keras
        """Let a new head start from what is known from the training subjects."""
        if self.head is not None:
            self.task.start_head(network, self.head)

    def finish(self, network: Any) -> Any:  # noqa: ANN401 - untyped Keras
        """Return the network with its columns, and with what the task needs after its dense layer.

        Raises:
            SettingsError: Columns cannot be joined to this network.
        """
        joined = _join_columns(network, self.columns) if self.columns else network
        return joined if self.head is None else self.task.finish(joined, self.head)

    @property
    def images_alone(self) -> InputSpec:
        """The same without columns."""
        return replace(self, columns=0)


@dataclass(frozen=True)
class Networks:
    """The networks of one model.

    Attributes:
        trained: Takes the batches of training: slices [B, H, W, C] or volumes [B, D, H, W, C], and columns of
            the table where the model joins them.
        volume: Takes volumes [B, D, H, W, C]; shares the weights of `trained`.
        local: On several hosts, a copy of `trained` that lies on this host alone; `volume` shares its weights
            then. None elsewhere.
        plan: How they were lifted; None where they were not.
    """

    trained: Any
    volume: Any
    local: Any = None
    plan: LiftPlan | None = None

    @property
    def own(self) -> Any:  # noqa: ANN401 - untyped Keras
        """The trained network, or its local copy where the trained one lies on several hosts."""
        return self.trained if self.local is None else self.local


def input_spec(cohort: Cohort) -> InputSpec:
    """Return what networks for this cohort are built for."""
    return InputSpec(
        cohort.shape,
        cohort.classes,
        cohort.preprocess.spacing,
        cohort.preprocess,
        task=cohort.task,
        head=cohort.head(),
        columns=0 if cohort.columns is None else cohort.columns.features.shape[1],
    )


def _join_columns(network: Any, width: int) -> Any:  # noqa: ANN401 - untyped Keras
    """Return a network with a second input, the columns; a task's output layer must follow again.

    Raises:
        SettingsError: The network does not end with a dense layer.
    """
    from voxlift.models.heads import strip_output_layer
    from voxlift.models.join import join_columns

    try:
        return join_columns(strip_output_layer(network), width=width)
    except ValueError as error:
        raise SettingsError(f"model.join_columns: {error}") from error


def is_trained_on_slices(model: ModelSettings) -> bool:
    """Return whether training sees single slices; learned attention over slices needs whole volumes."""
    return model.kind == "slice" and model.aggregate not in {"attention", "gated_attention"}


def pools_features(model: ModelSettings) -> bool:
    """Return whether features of slices are pooled, so that only the 2D network before its head is used."""
    return model.kind == "slice" and model.aggregate == "gated_attention"


def build_networks(model: ModelSettings, spec: InputSpec, *, untrained: Path | None = None) -> Networks:
    """Build the networks that the settings name.

    Args:
        model: What to build.
        spec: What to build for.
        untrained: File of the volume network that `model.builder` gave when the training began, if it did:
            nothing is built anew then.

    Raises:
        SettingsError, LiftError: The settings name something that cannot be built, and what to change.
    """
    if untrained is not None:
        return _load_networks(model, untrained)
    return (
        _build_slice_networks(model, spec) if model.kind == "slice" else _build_volume_networks(model, spec)
    )


def _load_networks(model: ModelSettings, file: Path) -> Networks:
    from voxlift.models.slice_model import unwrap_slices

    network = load_network(file)
    protect_training(network)
    return Networks(unwrap_slices(network) if is_trained_on_slices(model) else network, network)


def _build_slice_networks(model: ModelSettings, spec: InputSpec) -> Networks:
    from voxlift.models.slice_model import wrap_slices

    source = trained_source(model.baseline)
    if pools_features(model) and source is not None:
        return pool_networks(model, spec, load_trained(source))
    network = build_2d(model, spec, _slice_shape(model, spec))
    if pools_features(model):
        return pool_networks(model, spec, network)
    network = spec.finish(network)
    wrapped = wrap_slices(
        network,
        input_shape=spec.shape,
        axis=model.axis,
        slices=model.slices,
        aggregate=model.aggregate,
        slab=model.slab,
        activation=spec.task.activation,
    )
    return Networks(network if is_trained_on_slices(model) else wrapped, wrapped)


def pool_networks(model: ModelSettings, spec: InputSpec, network: Any) -> Networks:  # noqa: ANN401 - untyped Keras
    """Build a model of the features that a 2D network has of slices; it has a copy of the weights.

    The features are computed in every step, and so of augmented volumes.

    Args:
        model: With the slices, and whether the network is frozen.
        spec: What to build for; a trained network may come from images of another size.
        network: A Keras model of images [B, H, W, C]; its head is left out.

    Raises:
        SettingsError: It has no features, or does not accept these slices.
    """
    import keras

    from voxlift.models.copying import copy_network, copy_weights
    from voxlift.models.features import build_feature_extractor
    from voxlift.models.slice_model import pool_slices

    try:
        extractor = build_feature_extractor(network)
        copy = copy_network(extractor, keras.Input(_slice_shape(model, spec), name=network.inputs[0].name))
        copy_weights(extractor, copy)
    except ValueError as error:
        raise SettingsError(
            f"model.aggregate={model.aggregate}, features of {network.name}: {error}"
        ) from error
    pooled = pool_slices(
        copy,
        input_shape=spec.shape,
        classes=spec.units,
        axis=model.axis,
        slices=model.slices,
        slab=model.slab,
        is_frozen=model.frozen,
        dropout=model.dropout,
    )
    spec.start(pooled)
    pooled = spec.finish(pooled)
    return Networks(pooled, pooled)


def _build_volume_networks(model: ModelSettings, spec: InputSpec) -> Networks:
    source = trained_source(model.baseline)
    if source is None:
        network = spec.images_alone.finish(build_2d(model, spec, spec.shape[1:]))
        return join_networks(lift_networks(plan_volume(model, spec, network)), spec)
    if is_volume_file(source):
        return _load_volume_networks(source, spec)
    network, changes = prepare_trained(load_trained(source), source, spec)
    networks = lift_networks(plan_volume(model, spec, network, **changes))
    if "classes" in changes:
        spec.start(networks.volume)
    finished = spec.finish(networks.volume)
    return replace(networks, trained=finished, volume=finished)


def join_networks(networks: Networks, spec: InputSpec) -> Networks:
    """Return lifted networks with their columns; themselves where there are none."""
    if not spec.columns:
        return networks
    joined = spec.finish(networks.volume)
    return replace(networks, trained=joined, volume=joined)


def _load_volume_networks(source: Path, spec: InputSpec) -> Networks:
    """Load a 3D network, such as voxlift-lift writes, for these volumes and classes.

    Raises:
        SettingsError: It does not fit.
    """
    from voxlift.models.heads import strip_output_layer
    from voxlift.models.volume_network import adapt_volume_network

    try:
        network, has_new_head = adapt_volume_network(
            strip_output_layer(load_network(source)), input_shape=spec.shape, classes=spec.units
        )
    except ValueError as error:
        raise SettingsError(f"model.baseline={source}: {error}") from error
    log.info("%s is a 3D network: it is trained as it is, and not lifted", source)
    if has_new_head:
        log.info("%s was trained on other classes: the head starts from new weights", source)
        spec.start(network)
    network = spec.finish(network)
    protect_training(network)
    return Networks(network, network)


def plan_volume(model: ModelSettings, spec: InputSpec, network: Any, **changes: Any) -> LiftPlan:  # noqa: ANN401 - untyped Keras, and arguments of plan_lift
    """Plan the lift of a 2D network; its weights are read when the plan is built.

    Args:
        model: With depth policy, kernel and initialisation of the lift.
        spec: What to build for.
        network: A Keras model of images [B, H, W, C].
        **changes: Further arguments of `plan_lift`.

    Raises:
        LiftError: Layers or settings that cannot be lifted, all of them together.
    """
    from voxlift.models.lifting import plan_lift, with_depth_kernel

    policy: Any = model.depth_policy
    if model.depth_kernel is not None:
        policy = with_depth_kernel(policy, model.depth_kernel)
    if model.filter_scale != 1 and not model.has_stages:
        changes["filters"] = model.filter_scale
    return plan_lift(
        network,
        depth=spec.shape[0],
        depth_policy=policy,
        init=model.init,
        spacing=spec.spacing,
        **changes,
    )


def lift_networks(plan: LiftPlan) -> Networks:
    """Build the lifted network, which is trained on volumes and scores them."""
    lifted = plan.build()
    protect_training(lifted)
    return Networks(lifted, lifted, plan=plan)


def build_2d(model: ModelSettings, spec: InputSpec, input_shape: tuple[int, int, int]) -> Any:  # noqa: ANN401 - Keras ships no types
    """Build the 2D network.

    Args:
        model: With `builder`, or with `baseline` and its size.
        spec: With the head.
        input_shape: Height, width and channels of a slice.

    Returns:
        The network up to the dense layer of its head.

    Raises:
        SettingsError: `model.builder` or `model.baseline` cannot be built for these slices.
        LiftError: A trained network cannot be cut to these classes.
    """
    network = _build_2d(model, spec, input_shape)
    if trained_source(model.baseline) is None:
        spec.start(network)
    return network


def _build_2d(model: ModelSettings, spec: InputSpec, input_shape: tuple[int, int, int]) -> Any:  # noqa: ANN401 - as above
    if model.builder is not None:
        return build_users_network(model.builder, input_shape=input_shape, classes=spec.units)
    from voxlift.models.baselines import build_baseline

    options: dict[str, Any] = {"input_shape": input_shape, "classes": spec.units}
    if model.has_stages:
        filters = tuple(max(1, round(count * model.filter_scale)) for count in model.filters)
        options |= {"filters": filters, "dropout": model.dropout, "head": model.head}
    if model.has_given_weights:
        options |= {"weights": model.weights, **_describe_range(spec.preprocess)}
    folder = Path(model.baseline).expanduser()
    source = str(folder / "model.keras") if folder.is_dir() else model.baseline
    try:
        return build_baseline(source, **options)
    except ValueError as error:
        if type(error).__name__ == "LiftError":
            raise
        key = "baseline" if model.weights is None else "weights"
        raise SettingsError(f"model.{key}={getattr(model, key)}: {error}") from error


def _describe_range(preprocess: PreprocessSettings | Preprocess | None) -> dict[str, Any]:
    """Return the arguments of `build_baseline` for the range of prepared voxels."""
    if preprocess is None or preprocess.zscore == "none":
        return {"value_range": (0.0, 1.0)}  # of a window
    log.info(
        "model.weights: standard scores have no range; values below -%g and above %g are clipped",
        STANDARD_RANGE,
        STANDARD_RANGE,
    )
    return {"value_range": (-STANDARD_RANGE, STANDARD_RANGE), "is_clipped": True}


def _slice_shape(model: ModelSettings, spec: InputSpec) -> tuple[int, int, int]:
    """Return height, width and channels of a slice, or of a slab."""
    return (*_plane_sides(spec.shape[:3], model.axis), spec.shape[3] * model.slab)


def _plane_sides(shape: tuple[int, int, int], axis: str) -> tuple[int, int]:
    """Return the sides of the slices along an axis; `all` cuts along each of the three and needs a cube.

    Raises:
        SettingsError: `all` for a volume with unequal sides.
    """
    depth, height, width = shape
    if axis == "all" and len(set(shape)) > 1:
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
