"""The proof of a lift: the 3D network on one slice repeated along depth, against 2D on that slice."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from models.lifting.build import build_made
from models.lifting.flow import Flow
from models.lifting.inflate import Array
from models.lifting.kinds import Layer, Model
from models.lifting.plan import LiftPlan
from models.lifting.planner import GraphPlan, Step
from models.lifting.probes import in_channels, random_images, settling_images, size_of, with_depth
from models.lifting.proof import NOT_PROVED, LiftProof
from models.lifting.settle import settle_weights
from models.lifting.trace import trace

TOLERANCE = 1e-4
PRECISIONS = ("float32", "float64")
Key = tuple[int, int]  # a 2D operation's id, and the number of its call


@dataclass
class Record:
    """What the operations of one network gave, named by the 2D operations that they come from.

    Args:
        origins: The 2D operation's id by the id of the operation that is computed; None for the 2D network
            itself.
        outputs: Outputs of each call.
    """

    origins: Mapping[int, int] | None = None
    outputs: dict[Key, list[Array]] = field(default_factory=dict)
    calls: Counter[int] = field(default_factory=Counter)

    def key_of(self, operation: Layer) -> Key | None:
        """Return the name of an operation's next call; None for a layer that 2D does not have."""
        origin = id(operation) if self.origins is None else self.origins.get(id(operation))
        if origin is None:
            return None
        self.calls[origin] += 1
        return origin, self.calls[origin]

    def __call__(self, operation: Layer, outputs: list[Array]) -> None:
        """Keep the outputs of an operation's call."""
        key = self.key_of(operation)
        if key is not None:
            self.outputs[key] = outputs


@dataclass(frozen=True)
class Comparison:
    """Largest relative differences: of the outputs, and of every layer's outputs by its name, in order."""

    outputs: float
    layers: dict[str, float]
    inexact: dict[str, str]


def verify_lift(
    plan: LiftPlan,
    *,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    settle: bool = False,
    precision: str | None = None,
) -> LiftProof:
    """Return the proof of a lift.

    The plan is built once more with `centre` weights, fed with one random slice repeated along depth, and
    compared with the 2D network, layer by layer. Then the chosen scheme is checked on its own terms. A new
    head is left out of it; with other filters or another size, the 2D side is the slicewise lift of a single
    slice, which is the changed 2D network.

    Args:
        plan: What to prove.
        seed: Of the random slice.
        tolerance: Up to where a relative difference counts as rounding.
        settle: Give the 2D network sane random weights for the time of the proof, as one without trained
            weights needs; see `models.lifting.settle`.
        precision: "float32", "float64", or None for float32 first and float64 where that does not settle it:
            a deep network can amplify float32's rounding above the tolerance, and a wrong lift stays wrong.
    """
    begin = time.perf_counter()
    weights = plan.model_2d.get_weights() if settle else None
    try:
        if settle:
            settle_weights(plan.model_2d, settling_images(plan, seed), seed=seed)
        size = size_of(plan)
        centre = with_depth(plan.again(init="centre", classes=None), size)
        built = build_made(centre.graph, repeats=centre.repeats)
        scheme_difference = 0.0
        if plan.settings["init"] != "random":
            is_same = centre.settings == plan.settings
            scheme_difference = _check_scheme(plan, built[1] if is_same else build_made(plan.graph)[1])
        images = random_images(plan.model_2d, size, count=1, seed=seed, channels=plan.settings["channels"])
        for choice in PRECISIONS if precision is None else (precision,):
            expected = _reference(plan, images, size, choice)
            comparison = _compare(centre, built, images, expected, choice)
            proof = _judge(
                plan,
                comparison,
                precision=choice,
                scheme_difference=scheme_difference,
                tolerance=tolerance,
                begin=begin,
            )
            if proof.verdict != NOT_PROVED:
                break
    finally:
        if weights is not None:
            plan.model_2d.set_weights(weights)
    return proof


def _judge(
    plan: LiftPlan,
    comparison: Comparison,
    *,
    precision: str,
    scheme_difference: float,
    tolerance: float,
    begin: float,
) -> LiftProof:
    above = (name for name, difference in comparison.layers.items() if not difference <= tolerance)
    return LiftProof(
        network=plan.model_2d.name,
        policy=str(plan.settings["depth_policy"]),
        init=plan.settings["init"],
        precision=precision,
        difference=comparison.outputs,
        promised_difference=_largest(comparison.layers.values()),
        worst_layer=next(above, ""),
        scheme_difference=scheme_difference,
        tolerance=tolerance,
        inexact=comparison.inexact,
        seconds=time.perf_counter() - begin,
    )


def _compare(
    centre: LiftPlan,
    built: tuple[Model, dict[int, list[Layer]]],
    images: list[Array],
    reference: tuple[dict[Key, list[Array]], list[Array]],
    precision: str,
) -> Comparison:
    (model, made), (expected, outputs_2d) = built, reference
    volumes = [
        np.repeat(image[:, None], int(flow.depth or 1), axis=1) if flow.is_volume else image
        for image, flow in zip(images, centre.graph.inputs, strict=True)
    ]
    promises = dict(_numbered(_promises(centre.graph, frozenset())))
    record = Record(_origins(made))
    layers: dict[str, float] = {}

    def watch(operation: Layer, outputs: list[Array]) -> None:
        key = record.key_of(operation)
        if key in promises and key in expected:
            step = promises[key]
            pairs = zip(outputs, expected[key], step.outputs, strict=True)
            found = [_difference(*pair) for pair in pairs]
            layers[step.path] = _largest([layers.get(step.path, 0.0), *found])

    outputs = trace(model, volumes, precision=precision, watch=watch)
    pairs = zip(outputs, outputs_2d, centre.graph.outputs, strict=True)
    return Comparison(_largest(_difference(*pair) for pair in pairs), layers, centre.inexact)


def _reference(
    plan: LiftPlan, images: list[Array], size: tuple[int, int], precision: str
) -> tuple[dict[Key, list[Array]], list[Array]]:
    """Return the outputs of the 2D network's calls on the images, and its own outputs."""
    model, settings = plan.model_2d, plan.settings
    if settings["filters"] is None and settings["input_shape"] is None and not settings["logits"]:
        wanted = [tensor.shape[-1] for tensor in model.inputs]
        inputs = [in_channels(image, count) for image, count in zip(images, wanted, strict=True)]
        record = Record()
        outputs = trace(model, inputs, precision=precision, watch=record)
        return record.outputs, outputs
    single = plan.again(
        init="centre", classes=None, depth=1, depth_policy="slicewise", input_shape=(1, *size)
    )
    model, made = build_made(single.graph, repeats=single.repeats)
    record = Record(_origins(made))
    slices = [image[:, None] if image.ndim == 4 else image for image in images]
    outputs = trace(model, slices, precision=precision, watch=record)
    steps = dict(_numbered((step, True) for step in single.graph.walk()))
    calls = {
        key: [_slice_of(*pair) for pair in zip(found, steps[key].outputs, strict=True)]
        for key, found in record.outputs.items()
    }
    return calls, [_slice_of(*pair) for pair in zip(outputs, single.graph.outputs, strict=True)]


def _slice_of(output: Array, flow: Flow) -> Array:
    return output[:, 0] if "D" in flow.axes else output


def _origins(made: dict[int, list[Layer]]) -> dict[int, int]:
    """Return the 2D operation's id by the id of the layer that gives its output in 3D."""
    return {id(layers[-1]): origin for origin, layers in made.items() if layers}


def _promises(plan: GraphPlan, spoilt: frozenset[int]) -> Iterator[tuple[Step, bool]]:
    """Yield every step and whether the plan calls it exact: no layer on the way to it is inexact.

    Args:
        plan: The plan of a network.
        spoilt: Ids of those of its input tensors that are not exact.
    """
    known = set(spoilt)
    for step in plan.steps:
        read = [id(tensor) in known for tensor in step.call.inputs]
        if step.nested is None:
            is_spoilt = any(read) or bool(step.lifted and step.lifted.inexact)
            yield step, not is_spoilt
        else:
            inputs = zip(step.nested.graph.inputs, read, strict=True)
            inner = list(_promises(step.nested, frozenset(id(tensor) for tensor, bad in inputs if bad)))
            yield from inner
            is_spoilt = any(read) or not all(exact for _, exact in inner)
        known.update(map(id, step.call.outputs) if is_spoilt else ())


def _numbered(steps: Iterator[tuple[Step, bool]]) -> Iterator[tuple[Key, Step]]:
    """Yield the steps that are promised to be exact, named by operation and number of the call."""
    calls: Counter[int] = Counter()
    for step, is_exact in steps:
        origin = id(step.call.operation)
        calls[origin] += 1
        if is_exact:
            yield (origin, calls[origin]), step


def _difference(received: Array, expected: Array, flow: Flow) -> float:
    """Return the largest difference of a 3D tensor from its 2D twin, relative to the largest value."""
    if flow.repeats is None:
        return 0.0
    if "D" in flow.axes:
        axis = flow.axes.index("D")
        expected = np.expand_dims(expected, axis)
        front, back = flow.depth_padding  # slices of zeros for the next layer, which 2D does not have
        inner = slice(front, received.shape[axis] - back)
        received = received[(*[slice(None)] * axis, inner)]
    elif flow.repeats != 1:
        expected = np.tile(expected, flow.repeats)
    if expected.size == 0:
        return 0.0
    if not (np.isfinite(received).all() and np.isfinite(expected).all()):
        return np.inf
    scale = float(np.abs(expected).max()) or 1.0
    return float(np.abs(received - expected).max()) / scale


def _largest(differences: Any) -> float:  # noqa: ANN401  # any iterable of numbers
    """Return the largest number, and infinity where one is none: Python's max would pass over it."""
    values = [value if np.isfinite(value) else np.inf for value in differences]
    return max(values, default=0.0)


def _check_scheme(plan: LiftPlan, made: dict[int, list[Layer]]) -> float:
    """Return by how much the built kernels, collapsed along depth, differ from the 2D kernels."""
    return _largest(_collapse_difference(*triple) for triple in _weight_pairs(plan, made))


def _weight_pairs(plan: LiftPlan, made: dict[int, list[Layer]]) -> Iterator[tuple[Array, Array, int]]:
    for step in plan.graph.walk():
        lifted, operation = step.lifted, step.call.operation
        if lifted is None or lifted.transfer is None or step.is_shared:
            continue
        layer = made[id(operation)][len(lifted.before)]
        cut = plan.graph_edits.cut_of(operation)
        stride = layer.strides[0] if isinstance(layer, keras.layers.Conv3DTranspose) else 1
        for weight, weight_2d in zip(layer.get_weights(), cut(operation.get_weights()), strict=True):
            yield weight, weight_2d, stride


def _collapse_difference(weight: Array, weight_2d: Array, stride: int) -> float:
    collapsed = np.asarray(weight, np.float64)
    if weight.ndim == weight_2d.ndim + 1:
        collapsed = collapsed.sum(axis=0) / stride
    elif weight.shape != weight_2d.shape and weight.ndim == weight_2d.ndim:
        repeats = weight.shape[0] // weight_2d.shape[0]
        tiles = collapsed.reshape(repeats, *weight_2d.shape)
        collapsed = tiles.sum(axis=0) if weight.ndim == 2 else tiles.mean(axis=0)
    scale = float(np.abs(weight_2d).max()) if weight_2d.size else 1.0
    return float(np.abs(collapsed.reshape(weight_2d.shape) - weight_2d).max()) / (scale or 1.0)
