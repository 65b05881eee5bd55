"""What the rules for convolutions share: taps along depth, the scheme that holds, words for the plan."""

from collections.abc import Mapping
from typing import Any

from voxlift.models.lifting.depth import DepthRule
from voxlift.models.lifting.errors import RefusedError
from voxlift.models.lifting.flow import Flow
from voxlift.models.lifting.kinds import Value
from voxlift.models.lifting.rules.base import LayerCall


def depth_taps(config: Mapping[str, Any], rule: DepthRule) -> tuple[int, int]:
    """Return a convolution's taps and dilation along depth.

    Args:
        config: The 2D layer's configuration.
        rule: How its depth follows its height.
    """
    dilation = pair(config["dilation_rate"])[0]
    taps = odd_if_dilated(rule.kernel_for(config["kernel_size"][0]), dilation)
    return taps, dilation if taps > 1 else 1


def odd_if_dilated(taps: int, dilation: int) -> int:
    """Return the taps, one more where a dilated kernel would have none at the output position.

    Args:
        taps: Along depth.
        dilation: Slices from tap to tap.
    """
    return taps + 1 if dilation > 1 and taps % 2 == 0 else taps


def depth_growth(flow: Flow, wanted: int, height: int) -> int:
    """Return the factor by which depth grows where height does: what never shrank does not grow either.

    So the way back of an anisotropic encoder meets the way there; and what stands for all slices stays one.

    Args:
        flow: The tensor that is enlarged.
        wanted: What the policy asks for.
        height: The factor along height.
    """
    if flow.is_global:
        return 1
    return wanted if flow.reduction[0] >= wanted or flow.reduction[1] < height else 1


def refuse_dilated_steps(changes: Mapping[str, Any]) -> None:
    """Refuse strides together with dilation, which Keras has not in 3D.

    Args:
        changes: With `strides` and `dilation_rate`, each for depth, height and width.

    Raises:
        RefusedError: Both are above 1 somewhere.
    """
    if max(changes["strides"]) > 1 and max(changes["dilation_rate"]) > 1:
        raise RefusedError(
            f"strides {changes['strides']} and dilation {changes['dilation_rate']} exclude each other.",
            "Give this layer the depth stride 1.",
        )


def scheme_of(call: LayerCall) -> str:
    """Return "centre" or "mean": what three views cannot hold takes the centre tap under "acs"."""
    return "mean" if call.scheme == "mean" else "centre"


def fix_constraint(config: Mapping[str, Any], changes: dict[str, Any], weight: str) -> dict[str, Any]:
    """Return the changes with a kernel constraint's axes moved behind the new depth axis.

    Args:
        config: The 2D layer's configuration.
        changes: What changes in it already.
        weight: Prefix of the setting, such as `kernel`.
    """
    key = f"{weight}_constraint"
    constraint: Mapping[str, Any] = config[key] if isinstance(config.get(key), dict) else {}
    settings = constraint.get("config", {})
    if "axis" not in settings:
        return changes
    axes = settings["axis"] if isinstance(settings["axis"], list | tuple) else [settings["axis"]]
    moved = [axis + 1 if axis >= 0 else axis for axis in axes]
    moved = [0, *moved] if {0, 1} <= set(axes) else moved
    return {**changes, key: {**constraint, "config": {**settings, "axis": moved}}}


def reduced(flow: Flow, depth: float, height: float) -> tuple[float, float]:
    """Return by how much (depth, height) are downsampled behind strides.

    Args:
        flow: The tensor before them.
        depth: Stride along depth; below 1 where it grows.
        height: Stride along height; below 1 where it grows.
    """
    return flow.reduction[0] * depth, flow.reduction[1] * height


def describe(changes: Mapping[str, Any], padding: str) -> str:
    """Return a kernel, its stride, dilation and padding as the plan prints them.

    Args:
        changes: With `kernel_size`, `strides` and `dilation_rate`.
        padding: `same` or `valid`.
    """
    text = "x".join(str(size) for size in changes["kernel_size"])
    if len(changes["kernel_size"]) == 2:
        text = f"acs {text}"
    if set(changes["strides"]) != {1}:
        text += " /" + "x".join(str(size) for size in changes["strides"])
    if set(changes["dilation_rate"]) != {1}:
        text += " d" + "x".join(str(size) for size in changes["dilation_rate"])
    return f"{text} {padding}"


def pair(value: Value) -> tuple[int, int]:
    """Return (height, width) of a setting that may be one number."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])
