"""The augmentation settings: probability and range of every transform, checked together."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

# In node distances: up to here a displacement by cubic B-splines in three dimensions cannot fold.
# Source: Choi and Lee, Injectivity conditions of 2D and 3D uniform cubic B-spline functions, 2000,
# doi:10.1006/gmod.2000.0531.
ELASTIC_LIMIT = 1 / 2.48
_MAX_SHOWN = 10

_LIMITS: dict[str, tuple[float, float]] = {
    "rotation_degrees": (0, 180),
    "scale": (0.2, 5),
    "shear": (0, 1),
    "translation_mm": (0, math.inf),
    "crop_fraction": (0.1, 1),
    "elastic_mm": (0, math.inf),
    "elastic_node_mm": (1, math.inf),
    "shift_voxels": (0, math.inf),
    "fill": (-math.inf, math.inf),
    "bias_strength": (0, 2),
    "blur_sigma_mm": (0, math.inf),
    "lowres_factor": (1, 16),
    "noise_sd": (0, 10),
    "gamma": (0.1, 10),
    "contrast": (0.1, 10),
    "brightness": (0, 10),
    "cutout_fraction": (0, 1),
    "cutout_boxes": (1, 64),
    "mixup_alpha": (0, 100),
}
_RANGES = (
    "scale",
    "crop_fraction",
    "blur_sigma_mm",
    "lowres_factor",
    "noise_sd",
    "gamma",
    "contrast",
    "cutout_fraction",
)


@dataclass(frozen=True)
class Augment:
    """Probabilities and ranges of all transforms; the defaults vary nothing.

    A field `*_prob` is the probability that the transform acts on one volume. Three numbers are ordered
    (depth, height, width); of one number x, the draw is uniform within -x..x; of two, uniform between them.
    Intensity is varied relative to each volume's own mean, spread and extremes, so that windowed volumes in
    [0, 1], masks and z-scored volumes are all safe; nothing is clipped. On slices (depth 1) nothing
    acts along the depth axis.

    Attributes:
        flip_prob: Mirror each axis. A mirror image of a body part may belong to another class: see
            `changes_handedness`.
        turn_prob: Right-angle turn *about* each axis: a quarter turn or three where the plane's two sides
            and spacings are equal, a half turn in any plane.
        permute_prob: Exchange the axes (one of the five true permutations). Only for cubic grids: others
            are an error.
        keep_handedness: Never mirror: leaves out the flips and the permutations that amount to one.
        affine_prob: Rotate, scale, shear and translate, together, in one resample with crop and elastic.
        rotation_degrees: About each axis.
        scale: Magnification, uniform in its logarithm; one factor for all axes unless `scale_each_axis`.
        scale_each_axis: Draw one factor per axis.
        shear: Of depth along height, depth along width, height along width, in mm per mm.
        translation_mm: Along each axis.
        crop_prob: Take a box at a random position and stretch it over the whole grid.
        crop_fraction: The box's sides, relative to the grid's.
        elastic_prob: Bend smoothly by random displacements of the nodes of a coarse grid (cubic B-spline).
        elastic_mm: Largest displacement; at most 0.4 of `elastic_node_mm`, so that nothing folds.
        elastic_node_mm: Distance between the nodes.
        shift_prob: Move by whole voxels, without interpolation.
        shift_voxels: Largest shift along each axis, integers.
        fill_minimum: What comes in from outside, and cutout boxes, take each channel's minimum (air or
            background, under any intensity scale); otherwise `fill`.
        fill: The value used where `fill_minimum` is off.
        bias_prob: Multiply by a smooth field, as an uneven receive coil does. Acts on the distance to the
            channel's minimum.
        bias_strength: Largest absolute logarithm of the field.
        blur_prob: Gaussian blur.
        blur_sigma_mm: Its standard deviation.
        lowres_prob: Average over thicker voxels and interpolate back, along one drawn axis (thick slices).
        lowres_factor: How many times thicker.
        lowres_all_axes: Do it along all axes instead of one.
        noise_prob: Add white Gaussian noise.
        noise_sd: Its standard deviation, relative to the channel's own.
        gamma_prob: Raise to a power between the channel's minimum and maximum, which stay.
        gamma: The power, uniform in its logarithm.
        contrast_prob: Stretch about the channel's mean.
        contrast: The factor, uniform in its logarithm.
        brightness_prob: Add a constant.
        brightness: Largest absolute constant, relative to the channel's standard deviation.
        cutout_prob: Overwrite boxes with the fill value.
        cutout_fraction: Their sides, relative to the grid's.
        cutout_boxes: How many.
        mixup_alpha: Blend pairs of a batch with weights from Beta(alpha, alpha); 0 is off. Acts on batches
            with one-hot labels (`data_pipelines.augment.mixup`), not on single volumes.
    """

    flip_prob: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn_prob: tuple[float, float, float] = (0.0, 0.0, 0.0)
    permute_prob: float = 0.0
    keep_handedness: bool = False
    affine_prob: float = 0.0
    rotation_degrees: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float] = (1.0, 1.0)
    scale_each_axis: bool = False
    shear: tuple[float, float, float] = (0.0, 0.0, 0.0)
    translation_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    crop_prob: float = 0.0
    crop_fraction: tuple[float, float] = (1.0, 1.0)
    elastic_prob: float = 0.0
    elastic_mm: float = 0.0
    elastic_node_mm: float = 40.0
    shift_prob: float = 0.0
    shift_voxels: tuple[int, int, int] = (0, 0, 0)
    fill_minimum: bool = True
    fill: float = 0.0
    bias_prob: float = 0.0
    bias_strength: float = 0.0
    blur_prob: float = 0.0
    blur_sigma_mm: tuple[float, float] = (0.0, 0.0)
    lowres_prob: float = 0.0
    lowres_factor: tuple[float, float] = (1.0, 1.0)
    lowres_all_axes: bool = False
    noise_prob: float = 0.0
    noise_sd: tuple[float, float] = (0.0, 0.0)
    gamma_prob: float = 0.0
    gamma: tuple[float, float] = (1.0, 1.0)
    contrast_prob: float = 0.0
    contrast: tuple[float, float] = (1.0, 1.0)
    brightness_prob: float = 0.0
    brightness: float = 0.0
    cutout_prob: float = 0.0
    cutout_fraction: tuple[float, float] = (0.0, 0.0)
    cutout_boxes: int = 1
    mixup_alpha: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _convert(getattr(self, field.name), field.default))

    def check(self) -> None:
        """Raise if a field is invalid.

        Raises:
            ValueError: Names every invalid field, what was expected and what was received.
        """
        problems = [
            problem for field in fields(self) for problem in _field_problems(self, field.name, field.default)
        ]
        if not problems and self.elastic_mm > ELASTIC_LIMIT * self.elastic_node_mm:
            limit = ELASTIC_LIMIT * self.elastic_node_mm
            problems.append(
                f"elastic_mm: expected at most {limit:.4g}, since larger displacements fold the image "
                f"(0.4 of elastic_node_mm={self.elastic_node_mm:g}), received {self.elastic_mm!r}"
            )
        if problems:
            more = f"; and {len(problems) - _MAX_SHOWN} more" if len(problems) > _MAX_SHOWN else ""
            raise ValueError("augment: " + "; ".join(problems[:_MAX_SHOWN]) + more)


def changes_handedness(settings: Augment) -> bool:
    """Return whether a volume may come out as its mirror image.

    Where a label is a side or a handedness (left or right lung, a helix, situs), a mirror image belongs to
    another class and such an augmentation teaches errors. A flip along *any* single axis mirrors, and so do
    three of the five axis permutations; turns, rotations and cyclic permutations do not.
    `keep_handedness=True` leaves all mirroring out.

    >>> changes_handedness(Augment(flip_prob=(0, 0, 0.5)))
    True
    >>> changes_handedness(Augment(flip_prob=(0, 0, 0.5), turn_prob=(1, 1, 1), keep_handedness=True))
    False
    """
    return not settings.keep_handedness and (any(settings.flip_prob) or settings.permute_prob > 0)


def _field_problems(settings: Augment, name: str, default: Any) -> Iterator[str]:  # noqa: ANN401 - a field of any type
    value = getattr(settings, name)
    low, high = (0.0, 1.0) if name.endswith("_prob") else _LIMITS.get(name, (0.0, 1.0))
    if not _has_type(value, default):
        yield f"{name}: expected {_describe_type(default)}, received {value!r}"
        return
    numbers = value if isinstance(value, tuple) else (value,)
    if not all(low <= number <= high and math.isfinite(number) for number in numbers):
        yield f"{name}: expected {_describe_type(default)} within {low:g}..{high:g}, received {value!r}"
    elif name in _RANGES and value[0] > value[1]:
        yield f"{name}: expected the lower bound first, received {value!r}"


def _convert(value: Any, default: Any) -> Any:  # noqa: ANN401 - a field of any type
    """Return a list from a configuration file as a tuple, an integer in a float field as a float."""
    if isinstance(default, tuple) and isinstance(value, (list, tuple)):
        return tuple(_convert(item, default[0]) for item in value)
    return float(value) if isinstance(default, float) and type(value) is int else value


def _has_type(value: object, default: object) -> bool:
    if isinstance(default, tuple):
        return (
            isinstance(value, tuple)
            and len(value) == len(default)
            and all(_has_type(item, default[0]) for item in value)
        )
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    return isinstance(value, int) or (isinstance(default, float) and isinstance(value, float))


def _describe_type(default: object) -> str:
    if isinstance(default, tuple):
        return f"a tuple of {len(default)} " + ("integers" if isinstance(default[0], int) else "numbers")
    if isinstance(default, bool):
        return "true or false"
    return "an integer" if isinstance(default, int) else "a number"
