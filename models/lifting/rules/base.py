"""What a rule takes and gives: the vocabulary in which every lifting rule is written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import keras

from models.lifting.depth import DepthRule
from models.lifting.errors import RefusedError
from models.lifting.flow import Flow, Shape
from models.lifting.inflate import Array
from models.lifting.kinds import Layer, LayerClass, Value

Weights = list[Array]
Transfer = Callable[[Weights], Weights]


@dataclass(frozen=True)
class Follower:
    """A convolution or pool behind a padding layer: its 2D configuration and its depth rule."""

    config: Mapping[str, Any]
    rule: DepthRule

    @property
    def is_pool(self) -> bool:
        """Whether it is a pool, not a convolution."""
        return "pool_size" in self.config


@dataclass(frozen=True)
class LayerCall:
    """A 2D layer (or raw operation) where it is called, and all that its rule may want to know.

    Args:
        layer: The 2D layer.
        path: Its name, after the names of the models around it.
        config: Its configuration, with what the lift changes in 2D already (filters, classes); a copy.
        weight_shapes: Shapes of its 2D weights, after the same changes.
        inputs: The lifted tensors that it reads.
        shapes_2d: Shapes of its 2D outputs, after the same changes.
        rule: How its depth follows its height.
        scheme: "centre", "mean", "acs" or "random".
        is_fused: Whether batch normalisation takes the fused kernel.
        next_windows: The convolutions and pools that read its output, where it is a padding layer.
        args: Positional arguments of the call, for raw operations; symbolic tensors of 2D in place.
        kwargs: Keyword arguments of the call, the same.
        is_input_resized: Whether height and width differ from the 2D network's.
    """

    layer: Layer
    path: str
    config: Mapping[str, Any]
    weight_shapes: tuple[Shape, ...]
    inputs: tuple[Flow, ...]
    shapes_2d: tuple[Shape, ...]
    rule: DepthRule
    scheme: str
    is_fused: bool = True
    next_windows: tuple[Follower, ...] = ()
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    is_input_resized: bool = False

    @property
    def flow(self) -> Flow:
        """The first tensor that the layer reads."""
        return self.inputs[0]

    def volume(self) -> Flow:
        """Return the one volume that the layer reads.

        Raises:
            RefusedError: It reads something else, or data that is not channels-last.
        """
        if self.config.get("data_format", "channels_last") == "channels_first":
            raise RefusedError(
                "data_format='channels_first' has no lift.",
                "Build the 2D network with data_format='channels_last' (kernels are stored alike: "
                "set_weights(get_weights()) moves them) and lift that.",
            )
        if len(self.inputs) != 1 or not self.flow.is_volume:
            raise RefusedError(
                f"expected one tensor [B, D, H, W, C], received axes {[flow.axes for flow in self.inputs]}."
            )
        return self.flow


@dataclass(frozen=True)
class Extra:
    """A layer without weights that the lift sets before or behind another."""

    layer_class: LayerClass
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Lifted:
    """What a rule decides: the 3D layer, its output, and where its weights come from.

    Args:
        layer_class: Class of the 3D layer; None where the layer is left out and its input passes on.
        config: Configuration for `layer_class.from_config`.
        outputs: The tensors that it gives.
        weight_shapes: Shapes of its weights.
        transfer: Function from the 2D weights to the 3D weights; None leaves the layer's own initial values.
        source: Where the weights come from, for the plan.
        before: Layers set before it.
        after: Layers set behind it.
        window: Kernel or pool and stride, for the plan.
        inexact: Why the lifted layer can differ from the 2D one on a volume that is constant along depth;
            empty if it cannot.
        note: What else the user should know.
        call_args: Positional arguments for the layer, symbolic tensors of 2D in place; None for those of 2D.
        call_kwargs: Keyword arguments, where `call_args` is given.
    """

    layer_class: LayerClass
    config: Mapping[str, Any]
    outputs: tuple[Flow, ...]
    weight_shapes: tuple[Shape, ...] = ()
    transfer: Transfer | None = None
    source: str = ""
    before: tuple[Extra, ...] = ()
    after: tuple[Extra, ...] = ()
    window: str = ""
    inexact: str = ""
    note: str = ""
    call_args: tuple[Any, ...] | None = None
    call_kwargs: Mapping[str, Any] | None = None

    def become(self, **changes: Value) -> "Lifted":
        """Return this decision with some parts changed."""
        return replace(self, **changes)


LiftRule = Callable[[LayerCall], Lifted]


def copy_weights(weights: Weights) -> Weights:
    """Return the 2D weights as they are."""
    return weights


def weights_of(call: LayerCall, transfer: Transfer, source: str) -> dict[str, Any]:
    """Return the `transfer` and `source` of a decision; a random lift keeps the initial values.

    Args:
        call: The 2D layer where it is called.
        transfer: Function from its 2D to its 3D weights.
        source: Where they come from, for the plan.
    """
    if not call.weight_shapes:
        return {"transfer": None, "source": ""}
    if call.scheme == "random":
        return {"transfer": None, "source": "initialiser"}
    return {"transfer": transfer, "source": source}


def keep(call: LayerCall) -> Lifted:
    """Return the same layer: right for all that treat voxels alike, whatever their number of axes.

    Raises:
        RefusedError: An output has another rank than the input.
    """
    outputs = tuple(same_shape(call, shape_2d) for shape_2d in call.shapes_2d)
    return Lifted(
        type(call.layer),
        call.config,
        outputs,
        weight_shapes=call.weight_shapes,
        **weights_of(call, copy_weights, "copied"),
    )


def same_shape(call: LayerCall, shape_2d: Shape) -> Flow:
    """Return the first input's flow with the output's channels; spatial axes are as they were.

    Args:
        call: The 2D layer where it is called.
        shape_2d: Shape of its output in 2D.

    Raises:
        RefusedError: The output has another rank than the input.
    """
    flow = call.flow
    if len(shape_2d) != len(flow.shape_2d):
        raise RefusedError(
            f"expected an output of the input's rank, received {shape_2d} from {flow.shape_2d}.",
            "Register a rule of your own with register_lift_rule.",
        )
    shape = flow.shape if flow.repeats != 1 else (*flow.shape[:-1], shape_2d[-1])
    return flow.become(shape=shape, shape_2d=shape_2d, is_nonnegative=False)


def spatial_output(call: LayerCall, sizes: tuple[int | None, ...], *, channels: int | None = None) -> Flow:
    """Return a volume's flow with new (depth, height, width), and with the channels of the 2D output.

    Args:
        call: The 2D layer where it is called.
        sizes: Depth, height and width, None where unknown.
        channels: Where they are not those of the 2D output.

    Raises:
        DepthUsedUpError: An axis would have no slice left.
    """
    flow = call.flow
    out = channels if channels is not None else call.shapes_2d[0][-1]
    if sizes[0] is not None and sizes[0] < 1:
        raise DepthUsedUpError(flow.depth)
    if any(size is not None and size < 1 for size in sizes[1:]):
        raise RefusedError(
            f"height and width {flow.shape[2:4]} are too small for it.", "Ask for a larger input_shape."
        )
    return flow.become(shape=(flow.shape[0], *sizes, out), shape_2d=call.shapes_2d[0], is_nonnegative=False)


class DepthUsedUpError(RefusedError):
    """Too few slices reach a layer."""

    def __init__(self, depth: int | None) -> None:
        super().__init__(
            f"only {depth} of the slices reach it, too few for its window along depth.",
            "Lift with depth_policy='preserve' (no downsampling along depth), or with more depth.",
        )


def is_nonnegative_activation(config: Mapping[str, Any]) -> bool:
    """Return whether a layer's configured activation gives no value below zero."""
    activation = config.get("activation")
    name = activation.get("config") if isinstance(activation, dict) else activation
    name = getattr(name, "__name__", name)
    return name in {"relu", "relu6", "sigmoid", "softmax", "hard_sigmoid", "softplus", "exponential"}


def refuse_repeated(call: LayerCall) -> None:
    """Refuse a layer that looks at features together, where a flattened volume has them once per slice.

    Raises:
        RefusedError: A tensor that it reads repeats its features.
    """
    if any(flow.repeats != 1 for flow in call.inputs):
        raise RefusedError(
            "it takes flattened features together, and a volume has them once per slice.",
            "Put a global pool in the place of Flatten.",
        )


def dtype_of(call: LayerCall) -> dict[str, Any]:
    """Return the dtype setting for a layer that stands beside the lifted one."""
    return {"dtype": call.config["dtype"]} if "dtype" in call.config else {}


def depth_padding_layer(call: LayerCall, front: int, back: int) -> Extra:
    """Return a layer that sets slices of zeros in front and behind.

    Args:
        call: The layer that it is set before.
        front: Slices in front.
        back: Slices behind.
    """
    config = {
        "name": f"{call.config['name']}_depth_pad",
        "padding": ((front, back), (0, 0), (0, 0)),
        **dtype_of(call),
    }
    return Extra(keras.layers.ZeroPadding3D, config)
