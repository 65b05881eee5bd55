"""How to write a lifting rule: what a rule receives, what it returns, and how it is registered.

A rule is a function from a `LayerCall` (a 2D layer where it is called) to a `Lifted` (the 3D layer, the
tensors that it returns and its weights). It is applied once per call of the layer while the lift is planned;
nothing is built. A layer that acts on every voxel alike needs one line, since without a rule of its own it is
kept as it is:

    register_lift_rule(MyScaling)

A rule for a layer that must change reads the volume, describes its output, and says what happens to the
weights:

    def lift_blur(call: LayerCall) -> Lifted:
        volume = call.require_volume()                  # [B, D, H, W, C], or UnsupportedError
        taps = call.depth_rule.kernel_for(call.config["size"])
        return Lifted(
            MyBlur3D,
            {**call.config, "depth": taps},             # for MyBlur3D.from_config
            (volume.replace(is_nonnegative=False),),    # one TensorSpec per output
            weight_shapes=((taps, *call.weight_shapes[0]),),
            **weight_transfer(call, lambda weights: [inflate(weights[0], taps, "centre")], "inflated"),
        )

    register_lift_rule(MyBlur2D, lift_blur)

What a rule must take care of:

- Axis numbers of the 2D network shift in 3D: use `call.spec.axis_3d(axis)`.
- A layer that cannot be lifted raises `UnsupportedError(reason, fix)`. The planner reports the errors of all
  layers together.
- If the 3D layer can differ from the 2D layer on a volume that is constant along depth, say why in
  `Lifted.inexact`. `verify_lift` holds every other layer to equality.
- After Flatten a tensor may repeat its features once per slice (`TensorSpec.repeats`): a layer that reads
  features together calls `results.require_single_features(call)` first.

The built-in rules are in this package, one module per family of layers; `rules/__init__.py` assigns them to
layer classes. `results.py` contains common results, `windows.py` the arithmetic of kernels and pools.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import keras

from voxlift.models.lifting.depth import DepthRule
from voxlift.models.lifting.errors import UnsupportedError
from voxlift.models.lifting.types import (
    Layer,
    LayerClass,
    Shape,
    Tensor,
    TensorSpec,
    Transfer,
    Value,
    Weights,
)


@dataclass(frozen=True)
class Consumer:
    """A convolution or pool that reads a padding layer: its 2D configuration and its depth rule."""

    config: Mapping[str, Any]
    depth_rule: DepthRule

    @property
    def is_pool(self) -> bool:
        """Whether it is a pool, not a convolution."""
        return "pool_size" in self.config


@dataclass(frozen=True)
class LayerCall:
    """A 2D layer (or raw operation) where it is called, with all facts that its rule may need.

    Args:
        layer: The 2D layer.
        path: Its name, after the names of the models around it.
        config: A copy of its configuration, after the changes of the lift in 2D (filters, classes).
        weight_shapes: Shapes of its 2D weights, after the same changes.
        inputs: The lifted tensors that it reads.
        shapes_2d: Shapes of its 2D outputs, after the same changes.
        depth_rule: How its depth follows its height.
        scheme: "centre", "mean", "acs" or "random".
        is_fused: Whether batch normalisation uses the fused kernel.
        consumers: The convolutions and pools that read its output, if it is a padding layer.
        args: Positional arguments of the call, for raw operations; with symbolic tensors of the 2D network.
        kwargs: Keyword arguments of the call, the same.
    """

    layer: Layer
    path: str
    config: Mapping[str, Any]
    weight_shapes: tuple[Shape, ...]
    inputs: tuple[TensorSpec, ...]
    shapes_2d: tuple[Shape, ...]
    depth_rule: DepthRule
    scheme: str
    is_fused: bool = True
    consumers: tuple[Consumer, ...] = ()
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> TensorSpec:
        """The first tensor that the layer reads."""
        return self.inputs[0]

    @property
    def tensors(self) -> list[Tensor]:
        """The symbolic tensors of the 2D network that the layer reads, in the order of `inputs`."""
        values = keras.tree.flatten((self.args, dict(self.kwargs)))
        return [value for value in values if isinstance(value, keras.KerasTensor)]

    def require_volume(self) -> TensorSpec:
        """Return the one volume that the layer reads.

        Raises:
            UnsupportedError: It reads something else, or data that is not channels-last.
        """
        if self.config.get("data_format", "channels_last") == "channels_first":
            raise UnsupportedError(
                "data_format='channels_first' is not supported.",
                "Build the 2D network with data_format='channels_last' and lift that; kernels have the same "
                "layout, so set_weights(get_weights()) copies them.",
            )
        if len(self.inputs) != 1 or not self.spec.is_volume:
            raise UnsupportedError(
                f"expected one tensor [B, D, H, W, C], received axes {[spec.axes for spec in self.inputs]}."
            )
        return self.spec

    def replace(self, **changes: Value) -> "LayerCall":
        """Return this call with some fields changed."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class ExtraLayer:
    """A layer without weights that the lift inserts before or after another."""

    layer_class: LayerClass
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Lifted:
    """The result of a rule: the 3D layer, its outputs and the source of its weights.

    Args:
        layer_class: Class of the 3D layer; None if the layer is left out and its input is passed on.
        config: Configuration for `layer_class.from_config`.
        outputs: The tensors that it returns.
        weight_shapes: Shapes of its weights.
        transfer: Function from the 2D weights to the 3D weights; None keeps the layer's initial values.
        source: Where the weights come from, for the plan.
        before: Layers inserted before it.
        after: Layers inserted after it.
        window: Kernel or pool and stride, for the plan.
        inexact: Why the lifted layer can differ from the 2D one on a volume that is constant along depth;
            empty if it cannot.
        note: What else the user should know.
        call_args: Positional arguments for the layer, with symbolic tensors of the 2D network; None for the
            arguments of the 2D call.
        call_kwargs: Keyword arguments, if `call_args` is given.
        is_rearranged: Whether the 3D weights are the 2D weights in another form, so that only outputs can be
            compared.
    """

    layer_class: LayerClass
    config: Mapping[str, Any]
    outputs: tuple[TensorSpec, ...]
    weight_shapes: tuple[Shape, ...] = ()
    transfer: Transfer | None = None
    source: str = ""
    before: tuple[ExtraLayer, ...] = ()
    after: tuple[ExtraLayer, ...] = ()
    window: str = ""
    inexact: str = ""
    note: str = ""
    call_args: tuple[Any, ...] | None = None
    call_kwargs: Mapping[str, Any] | None = None
    is_rearranged: bool = False

    def replace(self, **changes: Value) -> "Lifted":
        """Return this result with some fields changed."""
        return dataclasses.replace(self, **changes)


LiftRule: TypeAlias = Callable[[LayerCall], Lifted]

_USER_RULES: dict[Any, LiftRule] = {}


def register_lift_rule(layer_class: type, rule: LiftRule | None = None) -> None:
    """Register the rule by which layers of one class are lifted; it precedes a built-in rule.

    Args:
        layer_class: Class of the 2D layer, exactly; each subclass needs a rule of its own.
        rule: Function from a `LayerCall` to a `Lifted`. None keeps the layer as it is, which is right if it
            acts on every pixel alike and accepts tensors of any rank.
    """
    _USER_RULES[layer_class] = rule or keep_layer


def unregister_lift_rule(layer_class: type) -> None:
    """Remove the rule that was registered for a class."""
    _USER_RULES.pop(layer_class, None)


def user_rule(operation: Layer) -> LiftRule | None:
    """Return the rule that the user registered for a layer's class, None if there is none."""
    return _USER_RULES.get(type(operation))


def keep_layer(call: LayerCall) -> Lifted:
    """Return the same layer, for layers that act on all voxels alike, whatever the number of axes.

    Raises:
        UnsupportedError: An output has another rank than the input.
    """
    outputs = tuple(same_sides(call, shape_2d) for shape_2d in call.shapes_2d)
    return Lifted(
        type(call.layer),
        call.config,
        outputs,
        weight_shapes=call.weight_shapes,
        **weight_transfer(call, copy_weights, "copied"),
    )


def same_sides(call: LayerCall, shape_2d: Shape) -> TensorSpec:
    """Return the first input with the channels of an output; the other axes are unchanged.

    Args:
        call: The 2D layer where it is called.
        shape_2d: Shape of its output in 2D.

    Raises:
        UnsupportedError: The output has another rank than the input.
    """
    spec = call.spec
    if len(shape_2d) != len(spec.shape_2d):
        raise UnsupportedError(
            f"expected an output of the same rank as the input, received {shape_2d} from {spec.shape_2d}.",
            "Register your own rule with register_lift_rule.",
        )
    shape = spec.shape if spec.repeats != 1 else (*spec.shape[:-1], shape_2d[-1])
    return spec.replace(shape=shape, shape_2d=shape_2d, is_nonnegative=False)


def weight_transfer(call: LayerCall, transfer: Transfer, source: str) -> dict[str, Any]:
    """Return `transfer` and `source` of a result; with the scheme "random" the initial values are kept.

    Args:
        call: The 2D layer where it is called.
        transfer: Function from its 2D to its 3D weights.
        source: Where the weights come from, for the plan.
    """
    if not call.weight_shapes:
        return {"transfer": None, "source": ""}
    if call.scheme == "random":
        return {"transfer": None, "source": "initialiser"}
    return {"transfer": transfer, "source": source}


def copy_weights(weights: Weights) -> Weights:
    """Return the 2D weights unchanged."""
    return weights
