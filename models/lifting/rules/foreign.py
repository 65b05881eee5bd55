"""The rule for layers of other libraries: kept if they are proved to act on each position alone.

The proof builds two copies of the layer with the same random weights, and compares the layer on a probe of
one rank more with the layer slice by slice: outputs, and the gradients of the probe and of every weight, at
inference and in training. A layer that mixes positions, reads axis numbers or has weights per position
differs.
"""

import inspect
from collections.abc import Mapping
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import keras
import numpy as np
from keras import ops

from voxlift.models.backend import value_and_gradients
from voxlift.models.lifting.errors import UnsupportedError, describe_error
from voxlift.models.lifting.rules.base import LayerCall, Lifted, keep_layer
from voxlift.models.lifting.types import Array, Layer

Sizes: TypeAlias = tuple[int, ...]

TOLERANCE = 1e-4  # relative, in float32; what mixes positions differs by far more
PROBE_SCALES = (1.0, 30.0)  # small and large values: a layer may act on one of them only
BATCH, DEPTH, HEIGHT, WIDTH = 2, 3, 4, 5
NOTE = "proved to act on each position alone"
FIX = (
    "Use supported layers instead, or register your own rule: register_lift_rule(LayerClass, rule), "
    "see docs/how-to/lift-your-own-layer.md."
)

_DIFFERENCES: WeakKeyDictionary[Any, dict[int, str]] = WeakKeyDictionary()  # by layer and rank


def lift_foreign(call: LayerCall) -> Lifted:
    """Return the same layer with its weights, if it acts on each position alone.

    Raises:
        UnsupportedError: It does not, or it reads several tensors.
    """
    require_no_relative_positions(call.layer)
    if len(call.inputs) != 1 or len(call.shapes_2d) != 1:
        raise UnsupportedError(
            "there is no rule for this class, and it reads or returns several tensors.", FIX
        )
    if has_settings(call):
        raise UnsupportedError(
            "there is no rule for this class, and it is called with further arguments.", FIX
        )
    if not call.spec.is_volume:
        raise UnsupportedError(f"there is no rule for this class on axes {call.spec.axes}.", FIX)
    difference = find_position_dependence(call)
    if difference:
        raise UnsupportedError(
            f"there is no rule for this class, and it does not act on each position alone: {difference}", FIX
        )
    return keep_layer(call).replace(note=NOTE)


def has_settings(call: LayerCall) -> bool:
    """Return whether a layer is called with more than a tensor and `training`."""
    others = {key: value for key, value in call.kwargs.items() if key != "training"}
    values = keras.tree.flatten((call.args, others))
    return any(value is not None and not isinstance(value, keras.KerasTensor) for value in values)


def require_no_relative_positions(layer: Layer) -> None:
    """Raise if a layer has a table of relative positions, as Swin transformers have.

    Args:
        layer: The layer, with the layers that it holds.

    Raises:
        UnsupportedError: Such a table has no entries for distances along depth.
    """
    names = (getattr(weight, "path", weight.name) for weight in getattr(layer, "weights", ()))
    if any("relative_position" in name for name in names):
        raise UnsupportedError(
            "its table of relative positions has no entries for distances along depth.",
            "Use a vision transformer with absolute or no position embeddings.",
        )


def find_position_dependence(call: LayerCall) -> str:
    """Return why a layer does not act on each position alone; empty if it is proved to do so.

    Args:
        call: The 2D layer where it is called, on an image [B, H, W, C] or on tokens [B, T, C].
    """
    known = _DIFFERENCES.setdefault(call.layer, {})
    rank = len(call.spec.shape_2d)
    if rank not in known:
        known[rank] = _compare_with_slices(call, rank)
    return known[rank]


def _compare_with_slices(call: LayerCall, rank: int) -> str:
    channels = int(call.spec.channels or 1)
    # Tokens have no axis more: the longer sequence is compared with its parts.
    whole: Sizes = (BATCH, DEPTH, HEIGHT, WIDTH, channels) if rank == 4 else (BATCH, DEPTH * HEIGHT, channels)
    parts: Sizes = (BATCH * DEPTH, *((HEIGHT, WIDTH) if rank == 4 else (HEIGHT,)), channels)
    try:
        on_parts = build_copy(call.layer, call.config, parts)
        # From the configuration after build: the layer must survive save and load as well.
        on_whole = build_copy(call.layer, on_parts.get_config(), whole)
    except Exception as error:  # noqa: BLE001  # whatever foreign code raises
        return f"a copy cannot be built on tensors of shape {whole}: {describe_error(error)}"
    shapes = [tuple(weight.shape) for weight in on_whole.weights]
    if shapes != [tuple(shape) for shape in call.weight_shapes]:
        return f"on a volume its weights have shapes {shapes}, expected {list(call.weight_shapes)}."
    _draw_same_weights(on_parts, on_whole)
    try:
        return _find_difference(on_parts, on_whole, parts, whole)
    except Exception as error:  # noqa: BLE001  # whatever foreign code raises
        return f"it fails on tensors of shape {whole}: {describe_error(error)}"


def build_copy(layer: Layer, config: Mapping[str, Any], shape: Sizes) -> Layer:
    """Return a copy of a layer from its configuration that computes in float32, built by a call.

    Args:
        layer: The layer.
        config: Its configuration.
        shape: Of the tensor that the copy is called on.
    """
    precision = {"dtype": "float32"} if "dtype" in config else {}
    copy = type(layer).from_config({**config, **precision})
    copy(np.zeros(shape, "float32"))
    return copy


def draw_weights(layer: Layer) -> list[Array]:
    """Return random positive weights for a layer, so that none hides an operation."""
    generator = np.random.default_rng(0)
    return [generator.uniform(0.5, 1.5, each.shape).astype("float32") for each in layer.weights]


def _draw_same_weights(one: Layer, other: Layer) -> None:
    """Give two copies the same random weights, and the same seeds."""
    one.set_weights(draw_weights(one))
    for variable, same in zip(one.variables, other.variables, strict=True):
        same.assign(variable.value)


def _find_difference(on_parts: Layer, on_whole: Layer, parts: Sizes, whole: Sizes) -> str:
    generator = np.random.default_rng(1)
    for training in (False, True):
        for scale in PROBE_SCALES:
            probe = generator.normal(0, scale, whole).astype("float32")
            expected = compute_with_gradients(on_parts, probe.reshape(parts), training=training)
            received = compute_with_gradients(on_whole, probe, training=training)
            mode = "in training" if training else "at inference"
            if expected[0].shape[:-1] != parts[:-1] or received[0].shape[:-1] != whole[:-1]:
                return f"it returns {received[0].shape} for {whole} and {expected[0].shape} for {parts}."
            for name, one, other in zip(_names(on_whole), received, expected, strict=True):
                difference = _relative_difference(one, other.reshape(one.shape))
                if not difference <= TOLERANCE:
                    return f"its {name} on a volume differs from slice by slice by {difference:.1e} {mode}."
    return ""


def _names(layer: Layer) -> list[str]:
    return ["output", "gradient", *[f"gradient of {each.name}" for each in layer.trainable_variables]]


def _relative_difference(received: Array, expected: Array) -> float:
    if not (np.isfinite(received).all() and np.isfinite(expected).all()):
        return np.inf
    return float(np.abs(received - expected).max(initial=0)) / (float(np.abs(expected).max(initial=0)) or 1.0)


def call_copy(layer: Layer, inputs: Array, *, training: bool) -> Array:
    """Return a layer's output as an array.

    Args:
        layer: The layer.
        inputs: What it reads.
        training: Whether it computes as in training, if it differs there.
    """
    return np.asarray(ops.convert_to_numpy(layer(inputs, **_mode(layer, training=training))))


def _mode(layer: Layer, *, training: bool) -> dict[str, bool]:
    return {"training": training} if "training" in inspect.signature(layer.call).parameters else {}


def compute_with_gradients(layer: Layer, inputs: Array, *, training: bool) -> list[Array]:
    """Return a layer's output, and the gradients of its weighted sum for the input and each trainable weight.

    Args:
        layer: The layer, built.
        inputs: What it reads.
        training: Whether it computes as in training, if it differs there.
    """
    settings = _mode(layer, training=training)
    fixed = [variable.value for variable in layer.non_trainable_variables]

    def compute(tensor: Any, *weights: Any) -> Any:  # noqa: ANN401  # tensors
        return layer.stateless_call(list(weights), fixed, tensor, **settings)[0]

    trainable = [ops.convert_to_tensor(variable.value) for variable in layer.trainable_variables]
    outputs = compute(ops.convert_to_tensor(inputs), *trainable)
    direction = np.cos(np.arange(np.prod(outputs.shape), dtype="float32")).reshape(tuple(outputs.shape))

    def loss(tensor: Any, *weights: Any) -> Any:  # noqa: ANN401  # tensors
        return ops.sum(compute(tensor, *weights) * direction)

    _, gradients = value_and_gradients(loss, inputs, *trainable)
    return [np.asarray(keras.ops.convert_to_numpy(tensor)) for tensor in (outputs, *gradients)]
