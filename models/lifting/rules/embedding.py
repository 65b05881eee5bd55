"""The rule for layers of other libraries that read the tokens of a volume.

Beside layers that act on each token alone, two kinds are recognised by proof: position embeddings, with or
without new prefix tokens (the output is a constant plus the inputs), and class tokens (the output is the same
for all inputs).
"""

import math
from collections.abc import Callable

import numpy as np
from keras import ops

from voxlift.models.layers import TokenEmbedding3D
from voxlift.models.lifting.errors import UnsupportedError, describe_error
from voxlift.models.lifting.rules.base import LayerCall, Lifted, copy_weights, keep_layer, weight_transfer
from voxlift.models.lifting.rules.foreign import (
    FIX,
    NOTE,
    TOLERANCE,
    build_copy,
    call_copy,
    draw_weights,
    find_position_dependence,
    has_settings,
    require_no_relative_positions,
)
from voxlift.models.lifting.rules.results import dtype_setting
from voxlift.models.lifting.rules.tokens import layout_of
from voxlift.models.lifting.types import Array, TokenLayout, Weights, plain_spec


def lift_foreign_tokens(call: LayerCall) -> Lifted:
    """Return a layer that acts on each token alone, or position embeddings and class tokens for a volume.

    Raises:
        UnsupportedError: It is none of these.
    """
    require_no_relative_positions(call.layer)
    if len(call.inputs) != 1 or len(call.shapes_2d) != 1 or has_settings(call):
        raise UnsupportedError(
            "there is no rule for this class, and it reads or returns several values.", FIX
        )
    difference = find_position_dependence(call)
    if not difference:
        return keep_layer(call).replace(note=NOTE)
    before = None if None in call.spec.shape_2d[1:] else _constant_before(call)
    if before is None:
        raise UnsupportedError(
            "there is no rule for this class on the tokens of a volume; it adds no position embeddings, and "
            f"does not act on each token alone: {difference}",
            FIX,
        )
    return _lift_constant(call) if before < 0 else _lift_embedding(call, before)


def _constant_before(call: LayerCall) -> int | None:
    """Return how many constant tokens a layer puts before its inputs, to which it adds constants.

    -1 for a layer whose output is the same for all inputs; None for any other layer.
    """
    tokens, channels = (int(size or 1) for size in call.spec.shape_2d[1:])
    generator = np.random.default_rng(0)
    probes = [generator.normal(0, scale, (2, tokens, channels)).astype("float32") for scale in (1, 5, 30)]
    try:
        copy = build_copy(call.layer, call.config, probes[0].shape)
        copy.set_weights(draw_weights(copy))
        outputs = [call_copy(copy, probe, training=mode) for probe in probes for mode in (False, True)]
    except Exception:  # noqa: BLE001  # whatever foreign code raises
        return None
    if is_constant([*outputs, outputs[0][::-1]]):
        return -1
    before = outputs[0].shape[1] - tokens
    if outputs[0].ndim != 3 or before < 0 or outputs[0].shape[-1] != channels:
        return None
    inputs = [np.pad(probe, ((0, 0), (before, 0), (0, 0))) for probe in probes for _ in range(2)]
    rests = [output - added for output, added in zip(outputs, inputs, strict=True)]
    return before if is_constant([*rests, rests[0][::-1]]) else None


def is_constant(outputs: list[Array]) -> bool:
    """Return whether arrays are equal but for rounding."""
    scale = max(float(np.abs(outputs[0]).max(initial=0)), 1.0)
    return all(
        output.shape == outputs[0].shape
        and float(np.abs(output - outputs[0]).max(initial=0)) < TOLERANCE * scale
        for output in outputs
    )


def _lift_constant(call: LayerCall) -> Lifted:
    count, channels = call.spec.shape[1:]
    try:
        copy = build_copy(call.layer, call.config, (2, int(count or 1), int(channels or 1)))
    except Exception as error:
        raise UnsupportedError(
            f"it cannot be built for {count} tokens: {describe_error(error)}", FIX
        ) from error
    shapes = tuple(tuple(weight.shape) for weight in copy.weights)
    if shapes != tuple(call.weight_shapes):
        raise UnsupportedError(f"for {count} tokens its weights have shapes {shapes}.", FIX)
    return Lifted(
        type(call.layer),
        call.config,
        (plain_spec(call.shapes_2d[0]),),
        weight_shapes=call.weight_shapes,
        note="proved to return the same for all tokens",
        **weight_transfer(call, copy_weights, "copied"),
    )


def _lift_embedding(call: LayerCall, before: int) -> Lifted:
    tokens, channels = (int(size or 1) for size in call.spec.shape_2d[1:])

    def read_constants(weights: Weights) -> Array:
        copy = build_copy(call.layer, call.config, (1, tokens, channels))
        copy.set_weights(weights)
        constants = call_copy(copy, np.zeros((1, tokens, channels), "float32"), training=False)[0]
        return np.asarray(constants, "float32")

    note = "proved to add constants: position embeddings, repeated on every plane"
    return lift_constants(call, before, read_constants, note=note)


def lift_constants(
    call: LayerCall, before: int, read_constants: Callable[[Weights], Array], *, note: str
) -> Lifted:
    """Return TokenEmbedding3D for a layer that puts constant tokens before others and adds constants.

    Args:
        call: The layer where it is called, on the tokens of a volume.
        before: Number of the tokens that it puts before the others.
        read_constants: Function from its weights to its output [P + T, C] for zeros.
        note: What was proved.

    Raises:
        UnsupportedError: The planes have other sides than in 2D, and what they were is unknown.
    """
    spec, layout = call.spec, layout_of(call.spec)
    per_plane = (int(spec.shape[1] or 0) - layout.prefix) // layout.planes
    tokens, channels = (int(size or 1) for size in spec.shape_2d[1:])
    resize = _resizing(layout, tokens - layout.prefix, per_plane)

    def transfer(weights: Weights) -> Weights:
        first, known, rest = np.split(read_constants(weights), [before, before + layout.prefix])
        planes = np.repeat(resize(rest)[None], layout.planes, axis=0)
        return [part for part in (first, known, planes) if len(part)]

    config = {
        "name": call.layer.name,
        "planes": layout.planes,
        "prefix": before,
        "known_prefix": layout.prefix,
        "trainable": bool(call.layer.trainable_weights),
        **dtype_setting(call),
    }
    shapes = ((before, channels), (layout.prefix, channels), (layout.planes, per_plane, channels))
    output = spec.replace(
        shape=(spec.shape[0], None if spec.shape[1] is None else spec.shape[1] + before, channels),
        shape_2d=call.shapes_2d[0],
        tokens=layout.with_prefix(layout.prefix + before),
    )
    is_resized = per_plane != tokens - layout.prefix
    return Lifted(
        TokenEmbedding3D,
        config,
        (output,),
        weight_shapes=tuple(shape for shape in shapes if shape[0]),
        note=f"{note}, resized to planes of {'x'.join(map(str, layout.sides))}" if is_resized else note,
        call_args=(call.tensors[0],),
        call_kwargs={},
        is_rearranged=True,
        **weight_transfer(call, transfer, "repeated on every plane"),
    )


def _resizing(layout: TokenLayout, tokens_2d: int, tokens: int) -> Callable[[Array], Array]:
    """Return the function from position embeddings [T, C] of the 2D plane to those of the lifted plane.

    Raises:
        UnsupportedError: The number of tokens differs, and the sides of the planes are unknown.
    """
    if tokens == tokens_2d and layout.sides == layout.sides_2d:
        return np.asarray
    sides, sides_2d = (tuple(size or 0 for size in each) for each in (layout.sides, layout.sides_2d))
    if math.prod(sides_2d) != tokens_2d or math.prod(sides) != tokens:
        raise UnsupportedError(
            f"its position embeddings belong to {tokens_2d} tokens per plane, received {tokens}.",
            "Keep the 2D network's height and width.",
        )

    def resize(positions: Array) -> Array:
        grid = positions.reshape(1, *sides_2d, -1)
        resized = ops.image.resize(
            grid, sides, interpolation="bilinear", antialias=True, data_format="channels_last"
        )
        return np.asarray(ops.convert_to_numpy(resized)).reshape(tokens, -1)

    return resize
