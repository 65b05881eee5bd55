"""What rules answer with: the same layer, a volume of other sides, weights copied or not, a refusal."""

from collections.abc import Mapping
from typing import Any

import keras

from voxlift.models.lifting.errors import DepthUsedUpError, RefusedError
from voxlift.models.lifting.flow import Flow, Shape
from voxlift.models.lifting.rules.base import Extra, LayerCall, Lifted, Transfer, Weights


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


def activation_name(config: Mapping[str, Any]) -> str:
    """Return the name of a layer's configured activation; empty where it has none, or one of the user's."""
    activation = config.get("activation")
    name = activation.get("config") if isinstance(activation, dict) else activation
    name = getattr(name, "__name__", name)
    return name if isinstance(name, str) else ""


def is_nonnegative_activation(config: Mapping[str, Any]) -> bool:
    """Return whether a layer's configured activation gives no value below zero."""
    return activation_name(config) in {
        "relu",
        "relu6",
        "sigmoid",
        "softmax",
        "hard_sigmoid",
        "softplus",
        "exponential",
    }


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
