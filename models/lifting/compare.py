"""Two networks beside each other: 2D on a slice, its lift on that slice repeated along depth."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from voxlift.models.lifting.build import build_made
from voxlift.models.lifting.collapse import largest
from voxlift.models.lifting.flow import Flow
from voxlift.models.lifting.inflate import Array
from voxlift.models.lifting.kinds import Layer, Model
from voxlift.models.lifting.plan import LiftPlan
from voxlift.models.lifting.probes import in_channels
from voxlift.models.lifting.steps import Step
from voxlift.models.lifting.trace import trace

Key = tuple[int, int]  # a 2D operation's id, and the number of its call
Made = tuple[Model, dict[int, list[Layer]]]


@dataclass(frozen=True)
class Reference:
    """What the 2D network gave: the outputs of every call, and its own."""

    calls: Mapping[Key, list[Array]]
    outputs: list[Array]


@dataclass(frozen=True)
class Comparison:
    """Largest relative differences.

    Args:
        outputs: Of the network's outputs, from its inputs on.
        layers: Of the outputs of every layer that the plan calls exact, by its name, in order.
        layer_count: Layers and raw operations in all.
    """

    outputs: float
    layers: dict[str, float]
    layer_count: int


@dataclass
class _Names:
    """Names an operation's calls by the 2D operation that it comes from.

    Args:
        origins: The 2D operation's id by the id of the operation that is computed; None for the 2D network
            itself.
    """

    origins: Mapping[int, int] | None = None
    calls: Counter[int] = field(default_factory=Counter)

    def key_of(self, operation: Layer) -> Key | None:
        """Return the name of an operation's next call; None for a layer that 2D does not have."""
        origin = id(operation) if self.origins is None else self.origins.get(id(operation))
        if origin is None:
            return None
        self.calls[origin] += 1
        return origin, self.calls[origin]


def compare_networks(
    plan: LiftPlan, built: Made, images: list[Array], reference: Reference, *, precision: str
) -> Comparison:
    """Return how far a lifted network is from the 2D network.

    A layer that the plan calls inexact hands on what 2D has in its place, so that every layer behind it is
    compared on its own; the outputs are then computed once more without such help.

    Args:
        plan: The plan, with `centre` weights and a known depth.
        built: What it became.
        images: The slices.
        reference: What the 2D network gives on them.
        precision: In which the networks are computed.
    """
    steps = dict(_numbered(plan.graph.walk()))
    volumes = [
        np.repeat(image[:, None], int(flow.depth or 1), axis=1) if flow.is_volume else image
        for image, flow in zip(images, plan.graph.inputs, strict=True)
    ]
    names, layers = _Names(_origins(built[1])), dict[str, float]()

    def watch(operation: Layer, outputs: list[Array]) -> list[Array] | None:
        key = names.key_of(operation)
        if key is None or key not in steps or key not in reference.calls:
            return None
        step = steps[key]
        expected = [_as_wide(*pair) for pair in zip(reference.calls[key], outputs, strict=True)]
        if step.lifted is not None and step.lifted.inexact:
            return [_lift_value(*each) for each in zip(outputs, expected, step.outputs, strict=True)]
        found = [_difference(*each) for each in zip(outputs, expected, step.outputs, strict=True)]
        layers[step.path if key[1] == 1 else f"{step.path} (call {key[1]})"] = largest(found)
        return None

    outputs = trace(built[0], volumes, precision=precision, watch=watch)
    if plan.inexact:
        outputs = trace(built[0], volumes, precision=precision)
    pairs = zip(outputs, reference.outputs, plan.graph.outputs, strict=True)
    count = sum(step.lifted is not None and step.lifted.layer_class is not None for step in steps.values())
    return Comparison(largest(_difference(*pair) for pair in pairs), layers, count)


def compute_reference(
    plan: LiftPlan, images: list[Array], size: tuple[int, int], *, precision: str
) -> Reference:
    """Return what the 2D network gives on images, its logits where it ends in a softmax or sigmoid.

    Args:
        plan: The plan; with other filters or another size, the slicewise lift of a single slice stands for
            the changed 2D network.
        images: One array [B, H, W, C] per image input.
        size: Height and width of the images.
        precision: In which the network is computed.
    """
    if plan.settings["filters"] is None and plan.settings["input_shape"] is None:
        wanted = [tensor.shape[-1] for tensor in plan.model_2d.inputs]
        inputs = [in_channels(image, count) for image, count in zip(images, wanted, strict=True)]
        calls, watch = _recorder(_Names())
        outputs = trace(plan.model_2d, inputs, precision=precision, watch=watch, edits=plan.graph_edits)
        return Reference(calls, outputs)
    single = plan.again(depth=1, depth_policy="slicewise", input_shape=(1, *size))
    model, made = build_made(single.graph, is_grey=single.is_grey)
    calls, watch = _recorder(_Names(_origins(made)))
    slices = [image[:, None] if image.ndim == 4 else image for image in images]
    outputs = trace(model, slices, precision=precision, watch=watch)
    steps = dict(_numbered(single.graph.walk()))
    return Reference(
        {key: _slices_of(found, steps[key].outputs) for key, found in calls.items()},
        _slices_of(outputs, single.graph.outputs),
    )


def _recorder(names: _Names) -> tuple[dict[Key, list[Array]], Any]:
    calls: dict[Key, list[Array]] = {}

    def watch(operation: Layer, outputs: list[Array]) -> None:
        key = names.key_of(operation)
        if key is not None:
            calls[key] = outputs

    return calls, watch


def _slices_of(outputs: Iterable[Array], flows: Iterable[Flow]) -> list[Array]:
    pairs = zip(outputs, flows, strict=True)
    return [output[:, 0] if "D" in flow.axes else output for output, flow in pairs]


def _origins(made: dict[int, list[Layer]]) -> dict[int, int]:
    """Return the 2D operation's id by the id of the layer that gives its output in 3D."""
    return {id(layers[-1]): origin for origin, layers in made.items() if layers}


def _numbered(steps: Iterator[Step]) -> Iterator[tuple[Key, Step]]:
    """Yield the steps named by operation and number of the call."""
    calls: Counter[int] = Counter()
    for step in steps:
        origin = id(step.call.operation)
        calls[origin] += 1
        yield (origin, calls[origin]), step


def _as_wide(expected: Array, received: Array) -> Array:
    """Return a 2D tensor with as many channels as its lift: before a first convolution all are equal."""
    is_other = expected.ndim == received.ndim - 1 == 4 and expected.shape[-1] != received.shape[-1]
    return np.repeat(expected[..., :1], received.shape[-1], axis=-1) if is_other else expected


def _lift_value(received: Array, expected: Array, flow: Flow) -> Array:
    """Return a 2D tensor as it stands in 3D if nothing is lost: repeated along depth, zeros where padded."""
    if flow.repeats is None:
        return received
    if "D" not in flow.axes:
        return expected if flow.repeats == 1 else np.tile(expected, flow.repeats)
    axis = flow.axes.index("D")
    front, back = flow.depth_padding
    depth = received.shape[axis] - front - back
    lifted = np.repeat(np.expand_dims(expected, axis), depth, axis=axis)
    margins = [(front, back) if each == axis else (0, 0) for each in range(lifted.ndim)]
    return np.pad(lifted, margins)


def _difference(received: Array, expected: Array, flow: Flow) -> float:
    """Return the largest difference of a 3D tensor from its 2D twin, relative to the largest value."""
    if flow.repeats is None or expected.size == 0 or not np.issubdtype(expected.dtype, np.floating):
        return 0.0  # a comparison or a position can flip by rounding: what reads it is compared
    wanted = _lift_value(received, expected, flow)
    if not (np.isfinite(received).all() and np.isfinite(wanted).all()):
        return np.inf
    scale = float(np.abs(wanted).max()) or 1.0
    # Slices of zeros belong to the next layer: what stands in them is compared where it is read.
    inner = _inner(received, flow)
    return float(np.abs(received[inner] - wanted[inner]).max()) / scale


def _inner(received: Array, flow: Flow) -> tuple[slice, ...]:
    if "D" not in flow.axes:
        return ()
    axis = flow.axes.index("D")
    front, back = flow.depth_padding
    return (*[slice(None)] * axis, slice(front, received.shape[axis] - back))
