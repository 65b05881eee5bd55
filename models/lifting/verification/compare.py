"""Compare a lifted network with the 2D network: their layers, their outputs and their kernels."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import keras
import numpy as np

from voxlift.models.lifting.build import BuiltNetwork, build_network
from voxlift.models.lifting.plan import LiftPlan
from voxlift.models.lifting.planner import Step
from voxlift.models.lifting.types import Array, Layer, TensorSpec
from voxlift.models.lifting.verification.interpreter import run_graph
from voxlift.models.lifting.verification.random_data import match_channels

Key = tuple[int, int]  # a 2D operation's id, and the number of its call


@dataclass(frozen=True)
class Reference:
    """The outputs of every call of the 2D network, and of the network."""

    calls: Mapping[Key, list[Array]]
    outputs: list[Array]


@dataclass(frozen=True)
class Comparison:
    """Largest relative differences.

    Args:
        outputs: Of the network's outputs.
        layers: Of the outputs of every layer that the plan calls exact, by its name, in order.
        layer_count: Number of all layers and raw operations.
    """

    outputs: float
    layers: dict[str, float]
    layer_count: int


@dataclass
class _CallCounter:
    """A counter that identifies each call by its 2D operation and its number.

    Args:
        origins: The 2D operation's id by the id of the computed operation; None for the 2D network itself.
    """

    origins: Mapping[int, int] | None = None
    calls: Counter[int] = field(default_factory=Counter)

    def next_key(self, operation: Layer) -> Key | None:
        """Return the key of an operation's next call; None for a layer that the 2D network does not have."""
        origin = id(operation) if self.origins is None else self.origins.get(id(operation))
        if origin is None:
            return None
        self.calls[origin] += 1
        return origin, self.calls[origin]


@dataclass
class _Recorder:
    """A recorder of the outputs of every call."""

    counter: _CallCounter
    calls: dict[Key, list[Array]] = field(default_factory=dict)

    def record(self, operation: Layer, outputs: list[Array]) -> None:
        """Store the outputs of a call; an `OnOutputs` function."""
        key = self.counter.next_key(operation)
        if key is not None:
            self.calls[key] = outputs


@dataclass
class _Comparator:
    """A comparison of every call with the reference, one call after the other.

    Args:
        counter: Identifies the calls.
        steps: The plan's step of each call.
        reference: The 2D network's outputs.
        differences: Largest relative difference of each exact layer, by its name.
    """

    counter: _CallCounter
    steps: Mapping[Key, Step]
    reference: Reference
    differences: dict[str, float] = field(default_factory=dict)

    def compare(self, operation: Layer, outputs: list[Array]) -> list[Array] | None:
        """Compare the outputs of a call, or replace those of an inexact layer; an `OnOutputs` function."""
        key = self.counter.next_key(operation)
        if key is None or key not in self.steps or key not in self.reference.calls:
            return None
        step = self.steps[key]
        expected = [_match_width(*pair) for pair in zip(self.reference.calls[key], outputs, strict=True)]
        if step.lifted is not None and step.lifted.inexact:
            return [_lift_value(*each) for each in zip(outputs, expected, step.outputs, strict=True)]
        found = [_difference(*each) for each in zip(outputs, expected, step.outputs, strict=True)]
        self.differences[step.path if key[1] == 1 else f"{step.path} (call {key[1]})"] = largest(found)
        return None


def compare_networks(
    plan: LiftPlan, built: BuiltNetwork, images: list[Array], reference: Reference, *, precision: str
) -> Comparison:
    """Return the differences between a lifted network and the 2D network.

    The output of a layer that the plan calls inexact is replaced by its 2D output, so that every layer after
    it is compared by itself. The network's outputs are then computed once more without replacement.

    Args:
        plan: The plan, with `centre` weights and a known depth.
        built: The built network.
        images: The slices.
        reference: The outputs of the 2D network on them.
        precision: The precision of the computation.
    """
    volumes = [
        np.repeat(image[:, None], int(spec.depth or 1), axis=1) if spec.is_volume else image
        for image, spec in zip(images, plan.graph.inputs, strict=True)
    ]
    steps = dict(_numbered_steps(plan.graph.walk()))
    comparator = _Comparator(_CallCounter(_origins(built)), steps, reference)
    outputs = run_graph(built.model, volumes, precision=precision, on_outputs=comparator.compare)
    if plan.inexact:
        outputs = run_graph(built.model, volumes, precision=precision)
    pairs = zip(outputs, reference.outputs, plan.graph.outputs, strict=True)
    count = sum(step.lifted is not None and step.lifted.layer_class is not None for step in steps.values())
    return Comparison(largest(_difference(*pair) for pair in pairs), comparator.differences, count)


def compute_reference(
    plan: LiftPlan, images: list[Array], size: tuple[int, int], *, precision: str
) -> Reference:
    """Return the outputs of the 2D network on images, its logits if it ends in a softmax or sigmoid.

    Args:
        plan: The plan; with other filters or another size, the slicewise lift of a single slice replaces the
            changed 2D network.
        images: One array [B, H, W, C] per image input.
        size: Height and width of the images.
        precision: The precision of the computation.
    """
    if plan.settings["filters"] is None and plan.settings["input_shape"] is None:
        wanted = [tensor.shape[-1] for tensor in plan.model_2d.inputs]
        inputs = [match_channels(image, count) for image, count in zip(images, wanted, strict=True)]
        recorder = _Recorder(_CallCounter())
        outputs = run_graph(
            plan.model_2d,
            inputs,
            precision=precision,
            on_outputs=recorder.record,
            edits=plan.edits,
            unfolded=plan.graph.unfolded(),
        )
        return Reference(recorder.calls, outputs)
    single = plan.replan(depth=1, depth_policy="slicewise", input_shape=(1, *size))
    built = build_network(single.graph, is_grey=single.is_grey)
    recorder = _Recorder(_CallCounter(_origins(built)))
    slices = [image[:, None] if image.ndim == 4 else image for image in images]
    outputs = run_graph(built.model, slices, precision=precision, on_outputs=recorder.record)
    steps = dict(_numbered_steps(single.graph.walk()))
    return Reference(
        {key: _drop_depth(found, steps[key].outputs) for key, found in recorder.calls.items()},
        _drop_depth(outputs, single.graph.outputs),
    )


def compare_kernels(plan: LiftPlan, layers: Mapping[int, list[Layer]]) -> float:
    """Return the largest relative difference between built kernels, summed along depth, and the 2D kernels.

    Args:
        plan: A plan whose weights come from the 2D network.
        layers: The built layers by the id of their 2D operation.
    """
    return largest(_kernel_difference(*triple) for triple in _weight_pairs(plan, layers))


def largest(differences: Iterable[float]) -> float:
    """Return the largest number, and infinity if one is not finite: Python's max can pass over NaN."""
    values = [value if np.isfinite(value) else np.inf for value in differences]
    return max(values, default=0.0)


def _drop_depth(outputs: Iterable[Array], specs: Iterable[TensorSpec]) -> list[Array]:
    pairs = zip(outputs, specs, strict=True)
    return [output.take(0, spec.axes.index("D")) if "D" in spec.axes else output for output, spec in pairs]


def _origins(built: BuiltNetwork) -> dict[int, int]:
    """Return the 2D operation's id by the id of the layer that returns its output in 3D."""
    return {id(layers[-1]): origin for origin, layers in built.layers.items() if layers}


def _numbered_steps(steps: Iterable[Step]) -> Iterator[tuple[Key, Step]]:
    """Yield the steps with their keys."""
    calls: Counter[int] = Counter()
    for step in steps:
        origin = id(step.call.operation)
        calls[origin] += 1
        yield (origin, calls[origin]), step


def _match_width(expected: Array, received: Array) -> Array:
    """Return a 2D tensor with the channels of its lift: before an adapted convolution all are equal."""
    is_other = expected.ndim == received.ndim - 1 == 4 and expected.shape[-1] != received.shape[-1]
    return np.repeat(expected[..., :1], received.shape[-1], axis=-1) if is_other else expected


def _lift_value(received: Array, expected: Array, spec: TensorSpec) -> Array:
    """Return a 2D tensor in the shape of its lift: repeated along depth, zeros in the depth padding."""
    if spec.repeats is None:
        return received
    if spec.tokens is not None:
        axis = spec.axes.index("T")
        first, rest = np.split(expected, [spec.tokens.prefix], axis=axis)
        return np.concatenate([first, *[rest] * spec.tokens.planes], axis=axis)
    if "D" not in spec.axes:
        return expected if spec.repeats == 1 else np.tile(expected, spec.repeats)
    axis = spec.axes.index("D")
    front, back = spec.depth_padding
    depth = received.shape[axis] - front - back
    lifted = np.repeat(np.expand_dims(expected, axis), depth, axis=axis)
    margins = [(front, back) if each == axis else (0, 0) for each in range(lifted.ndim)]
    return np.pad(lifted, margins)


def _difference(received: Array, expected: Array, spec: TensorSpec) -> float:
    """Return the largest difference of a 3D tensor from its 2D tensor, relative to the largest value."""
    if spec.repeats is None or expected.size == 0 or not np.issubdtype(expected.dtype, np.floating):
        return 0.0  # rounding can change a comparison or a position: the layers that read it are compared
    wanted = _lift_value(received, expected, spec)
    if not (np.isfinite(received).all() and np.isfinite(wanted).all()):
        return np.inf
    scale = float(np.abs(wanted).max()) or 1.0
    # Values in the depth padding are compared after the layer that reads them.
    inner = _without_padding(received, spec)
    return float(np.abs(received[inner] - wanted[inner]).max()) / scale


def _without_padding(received: Array, spec: TensorSpec) -> tuple[slice, ...]:
    if "D" not in spec.axes:
        return ()
    axis = spec.axes.index("D")
    front, back = spec.depth_padding
    return (*[slice(None)] * axis, slice(front, received.shape[axis] - back))


def _weight_pairs(plan: LiftPlan, layers: Mapping[int, list[Layer]]) -> Iterator[tuple[Array, Array, int]]:
    """Yield each 3D weight, its 2D weight and the depth stride of a transposed convolution (else 1)."""
    for step in plan.graph.walk():
        lifted, operation = step.lifted, step.call.operation
        if lifted is None or lifted.transfer is None or lifted.is_rearranged or step.is_shared:
            continue
        layer = layers[id(operation)][len(lifted.before)]
        cut = plan.edits.cut_of(operation)
        stride = layer.strides[0] if isinstance(layer, keras.layers.Conv3DTranspose) else 1
        for weight, weight_2d in zip(layer.get_weights(), cut(operation.get_weights()), strict=True):
            yield weight, weight_2d, stride


def _kernel_difference(weight: Array, weight_2d: Array, stride: int) -> float:
    summed = weight
    if weight.ndim == weight_2d.ndim + 1:
        summed = weight.sum(axis=0, dtype=np.float64) / stride
    elif weight.shape != weight_2d.shape and weight.ndim == weight_2d.ndim:
        repeats = weight.shape[0] // weight_2d.shape[0]
        tiles = weight.reshape(repeats, *weight_2d.shape)
        summed = (tiles.sum if weight.ndim == 2 else tiles.mean)(axis=0, dtype=np.float64)
    scale = float(np.abs(weight_2d).max()) if weight_2d.size else 1.0
    return float(np.abs(summed.reshape(weight_2d.shape) - weight_2d).max()) / (scale or 1.0)
