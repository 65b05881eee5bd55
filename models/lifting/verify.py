"""The proof of a lift: the 3D network on one slice repeated along depth.

Against the 2D network on that slice.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import keras
import numpy as np

from models.lifting.build import build_made
from models.lifting.errors import LiftError
from models.lifting.flow import Flow, Shape
from models.lifting.inflate import Array
from models.lifting.kinds import Layer, Model, Value
from models.lifting.plan import LiftPlan
from models.lifting.settle import settle_weights

TOLERANCE = 1e-4
OPEN_SIZES = (32, 64, 96, 128)
OPEN_DEPTHS = (8, 16, 32, 64, 128)


@dataclass(frozen=True)
class LiftProof:
    """What a lift proved.

    Args:
        network: Name of the 2D network.
        policy: The depth policy asked for.
        init: The initialisation asked for.
        difference: Largest relative difference of the centre lift from the 2D network, on a repeated random
            slice.
        scheme_difference: Largest relative deviation of the chosen scheme's kernels, their taps added up (or
            their views
            as they are), from the 2D kernels.
        tolerance: Up to where a difference counts as rounding.
        inexact: Layers that can make a difference, with the reason.
        seconds: Time that the proof took.
    """

    network: str
    policy: str
    init: str
    difference: float
    scheme_difference: float
    tolerance: float
    inexact: dict[str, str]
    seconds: float

    @property
    def is_proved(self) -> bool:
        """Whether the lift kept what its plan promised."""
        is_exact = self.difference <= self.tolerance or bool(self.inexact)
        return is_exact and self.scheme_difference <= self.tolerance

    def row(self) -> dict[str, Any]:
        """Return the proof as one row of plain values."""
        return {each.name: getattr(self, each.name) for each in fields(self)} | {"is_proved": self.is_proved}

    def __str__(self) -> str:
        where = f"{self.network}, {self.policy}, on a repeated slice"
        lines = [f"{where}: largest relative difference from 2D {self.difference:.1e} ({self._verdict()})."]
        if self.init != "random":
            lines.append(
                f"init={self.init}: kernels give back the 2D kernels to {self.scheme_difference:.1e}."
            )
        lines += [f"  {layer}: {reason}" for layer, reason in list(self.inexact.items())[:10]]
        if len(self.inexact) > 10:
            lines.append(f"  and {len(self.inexact) - 10} layers more.")
        return "\n".join(lines)

    def _verdict(self) -> str:
        if self.difference <= self.tolerance:
            return "proved"
        return "expected: see below" if self.inexact else f"NOT proved: above {self.tolerance:.0e}"


def verify_lift(
    plan: LiftPlan, *, seed: int = 0, tolerance: float = TOLERANCE, settle: bool = False
) -> LiftProof:
    """Return the proof of a lift.

    The plan is built once more with `centre` weights, fed with one random slice repeated along depth, and
    compared
    with the 2D network. Then the chosen scheme is checked on its own terms. A new head is left out of it;
    with other
    filters or another size, the 2D side is the slicewise lift of a single slice, which is the changed 2D
    network.

    Args:
        plan: What to prove.
        seed: Of the random slice.
        tolerance: Up to where a relative difference counts as rounding.
        settle: Give the 2D network sane random weights for the time of the proof, as one without trained
            weights needs; see `models.lifting.settle`.
    """
    begin = time.perf_counter()
    weights = plan.model_2d.get_weights() if settle else None
    try:
        if settle:
            settle_weights(plan.model_2d, _settling_images(plan, seed), seed=seed)
        difference, inexact = _compare(plan, seed)
        scheme_difference = 0.0 if plan.settings["init"] == "random" else _check_scheme(plan)
    finally:
        if weights is not None:
            plan.model_2d.set_weights(weights)
    return LiftProof(
        network=plan.model_2d.name,
        policy=str(plan.settings["depth_policy"]),
        init=plan.settings["init"],
        difference=difference,
        scheme_difference=scheme_difference,
        tolerance=tolerance,
        inexact=inexact,
        seconds=time.perf_counter() - begin,
    )


def _compare(plan: LiftPlan, seed: int) -> tuple[float, dict[str, str]]:
    size = _size(plan)
    centre = _with_depth(plan.again(init="centre", classes=None), size)
    images = _images(plan.model_2d, size, count=1, seed=seed, channels=plan.settings["channels"])
    expected = _reference(plan, images, size)
    volumes = [
        np.repeat(image[:, None], int(flow.depth or 1), axis=1) if flow.is_volume else image
        for image, flow in zip(images, centre.graph.inputs, strict=True)
    ]
    received = _run(centre.build(), volumes)
    pairs = zip(received, expected, centre.graph.outputs, strict=True)
    return max(_difference(*pair) for pair in pairs), centre.inexact


def _reference(plan: LiftPlan, images: list[Array], size: tuple[int, int]) -> list[Array]:
    """Return the outputs of the 2D network on the images."""
    model, settings = plan.model_2d, plan.settings
    if settings["filters"] is None and settings["input_shape"] is None and not settings["logits"]:
        wanted = [tensor.shape[-1] for tensor in model.inputs]
        return _run(model, [_in_channels(image, count) for image, count in zip(images, wanted, strict=True)])
    single = plan.again(
        init="centre", classes=None, depth=1, depth_policy="slicewise", input_shape=(1, *size)
    )
    slices = [image[:, None] if image.ndim == 4 else image for image in images]
    outputs = zip(_run(single.build(), slices), single.graph.outputs, strict=True)
    return [output[:, 0] if "D" in flow.axes else output for output, flow in outputs]


def _settling_images(plan: LiftPlan, seed: int) -> list[Array]:
    """Return images of the 2D network's own size."""
    image = next((tensor.shape for tensor in plan.model_2d.inputs if len(tensor.shape) == 4), (None,) * 4)
    height, width = _size(plan)
    return _images(plan.model_2d, (image[1] or height, image[2] or width), count=8, seed=seed + 1)


def _in_channels(image: Array, count: int) -> Array:
    """Return the image as the 2D network wants it.

    Images for the proof have equal channels where they are adapted.
    """
    return image if image.shape[-1] == count or image.ndim != 4 else np.repeat(image[..., :1], count, axis=-1)


def _size(plan: LiftPlan) -> tuple[int, int]:
    """Return a height and width that the network takes, chosen where it leaves them open."""
    shape = plan.settings["input_shape"]
    image = next((tensor.shape for tensor in plan.model_2d.inputs if len(tensor.shape) == 4), None)
    wanted = (None, None) if image is None else image[1:3] if shape is None else tuple(shape)[1:]
    if None not in wanted:
        return int(wanted[0]), int(wanted[1])
    for side in OPEN_SIZES:
        size = (wanted[0] or side, wanted[1] or side)
        try:
            plan.again(init="random", classes=None, input_shape=(1, *size), depth=1, depth_policy="slicewise")
        except LiftError:
            continue
        return size
    return OPEN_SIZES[-1], OPEN_SIZES[-1]


def _with_depth(plan: LiftPlan, size: tuple[int, int]) -> LiftPlan:
    """Return the plan with a number of slices, the least that it can do with where it leaves it open."""
    is_open = any(flow.is_volume and flow.depth is None for flow in plan.graph.inputs)
    shape = plan.settings["input_shape"]
    if not is_open:
        return plan
    for depth in OPEN_DEPTHS:
        try:
            return plan.again(depth=depth, input_shape=None if shape is None else (depth, *size))
        except LiftError:
            if depth == OPEN_DEPTHS[-1]:
                raise
    return plan


def _images(
    model: Model, size: tuple[int, int], *, count: int, seed: int, channels: int | None = None
) -> list[Array]:
    generator = np.random.default_rng(seed)
    images = []
    for tensor in model.inputs:
        shape: Shape = tuple(tensor.shape)
        batch = shape[0] or count
        if len(shape) != 4:
            images.append(
                generator.normal(size=(batch, *[side or 8 for side in shape[1:]])).astype("float32")
            )
            continue
        image = generator.normal(size=(batch, *size, 1 if channels else int(shape[-1] or 1))).astype(
            "float32"
        )
        images.append(np.repeat(image, channels, axis=-1) if channels else image)
    return images


def _run(model: Model, arrays: list[Array]) -> list[Array]:
    inputs: Value = arrays if len(arrays) > 1 else arrays[0]
    if isinstance(model.input, dict):
        inputs = dict(zip(model.input, arrays, strict=True))
    outputs = keras.tree.flatten(model(inputs, training=False))
    return [np.asarray(keras.ops.convert_to_numpy(output), np.float64) for output in outputs]


def _difference(received: Array, expected: Array, flow: Flow) -> float:
    if "D" in flow.axes:
        expected = expected[:, None]
    elif flow.repeats not in (1, None):
        expected = np.tile(expected, flow.repeats)
    scale = float(np.abs(expected).max()) or 1.0
    return float(np.abs(received - expected).max()) / scale


def _check_scheme(plan: LiftPlan) -> float:
    """Return by how much the built kernels, collapsed along depth, differ from the 2D kernels."""
    _, made = build_made(plan.graph)
    return max((_collapse_difference(*pair) for pair in _weight_pairs(plan, made)), default=0.0)


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
