"""Results and checks that the rules of several families share."""

from collections.abc import Mapping
from typing import Any

import keras

from voxlift.models.lifting.errors import DepthTooSmallError, UnsupportedError
from voxlift.models.lifting.rules.base import ExtraLayer, LayerCall, Lifted
from voxlift.models.lifting.types import VOLUME_AXES, Shape, TensorSpec, Value, plain_spec

NONNEGATIVE_ACTIVATIONS = frozenset(
    {"relu", "relu6", "sigmoid", "softmax", "hard_sigmoid", "softplus", "exponential"}
)


def spatial_output(call: LayerCall, sizes: tuple[int | None, ...]) -> TensorSpec:
    """Return the output volume of a layer with new sides and the channels of the 2D output.

    Args:
        call: The 2D layer where it is called.
        sizes: Depth, height and width, None if unknown.

    Raises:
        DepthTooSmallError: No slice would be left.
        UnsupportedError: No row or column would be left.
    """
    spec = call.spec
    if sizes[0] is not None and sizes[0] < 1:
        raise DepthTooSmallError(spec.depth)
    if any(size is not None and size < 1 for size in sizes[1:]):
        raise UnsupportedError(
            f"height and width {spec.shape[2:4]} are smaller than its window.", "Use a larger input_shape."
        )
    shape = (spec.shape[0], *sizes, call.shapes_2d[0][-1])
    return spec.replace(shape=shape, shape_2d=call.shapes_2d[0], is_nonnegative=False)


def depth_padding_layer(call: LayerCall, front: int, back: int) -> ExtraLayer:
    """Return a layer that adds slices of zeros.

    Args:
        call: The layer before which it is inserted.
        front: Slices at the front.
        back: Slices at the back.
    """
    config = {
        "name": f"{call.config['name']}_depth_pad",
        "padding": ((front, back), (0, 0), (0, 0)),
        **dtype_setting(call),
    }
    return ExtraLayer(keras.layers.ZeroPadding3D, config)


def dtype_setting(call: LayerCall) -> dict[str, Any]:
    """Return the dtype setting of a layer, for a layer that is inserted beside it."""
    return {"dtype": call.config["dtype"]} if "dtype" in call.config else {}


def activation_name(config: Mapping[str, Any]) -> str:
    """Return the name of a layer's configured activation; empty for none or a function of the user's."""
    activation = config.get("activation")
    name = activation.get("config") if isinstance(activation, dict) else activation
    name = getattr(name, "__name__", name)
    return name if isinstance(name, str) else ""


def is_nonnegative_activation(config: Mapping[str, Any]) -> bool:
    """Return whether a layer's configured activation gives no value below zero."""
    return activation_name(config) in NONNEGATIVE_ACTIVATIONS


def require_single_features(call: LayerCall) -> None:
    """Raise if a layer that reads features together is applied to a flattened volume.

    Args:
        call: The layer where it is called.

    Raises:
        UnsupportedError: A tensor that it reads repeats the features once per slice.
    """
    if any(spec.repeats != 1 for spec in call.inputs):
        raise UnsupportedError(
            "it reads flattened features together, but a flattened volume repeats them once per slice.",
            "Replace Flatten by a global pooling layer.",
        )


def keep_operation(call: LayerCall) -> Lifted:
    """Return a raw operation as it is, for tensors without spatial axes.

    Raises:
        UnsupportedError: The tensors are features of a flattened volume.
    """
    require_single_features(call)
    outputs = tuple(plain_spec(shape) for shape in call.shapes_2d)
    return Lifted(type(call.layer), call.config, outputs)


def with_arguments(call: LayerCall, output: TensorSpec, **changes: Value) -> Lifted:
    """Return a raw operation with some arguments changed.

    Args:
        call: The operation where it is called.
        output: The tensor that it returns.
        changes: New values in its configuration.
    """
    return Lifted(type(call.layer), {**call.config, **changes}, (output,))


def without_axes(spec: TensorSpec, dropped: list[int], shape_2d: Shape) -> TensorSpec:
    """Return a tensor without some of its axes.

    Args:
        spec: The tensor; if one part of its split channels is left, that part becomes the channels.
        dropped: Indices of the axes in 3D.
        shape_2d: Shape of the result in 2D.
    """
    kept = [index for index in range(len(spec.axes)) if index not in dropped]
    axes = "".join(spec.axes[index] for index in kept)
    axes = VOLUME_AXES if len(axes) == 5 and axes.startswith("BDHW") else axes
    return spec.replace(axes=axes, shape=tuple(spec.shape[index] for index in kept), shape_2d=shape_2d)


def as_list(axis: Value) -> list[int]:
    """Return one axis or several as a list."""
    return list(axis) if isinstance(axis, list | tuple) else [axis]
