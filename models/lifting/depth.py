"""How depth follows height: kernel, stride and pool apart, per network, stage or layer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from voxlift.models.lifting.errors import LiftError, Problem
from voxlift.models.lifting.flow import Flow
from voxlift.models.lifting.kinds import Value

Size = int | Literal["height"]


@dataclass(frozen=True)
class DepthRule:
    """What the depth axis of one layer takes: "height" (the same as height) or a number.

    Args:
        kernel: Taps of a convolution.
        stride: Stride of a convolution; 1 also keeps the depth of a `valid` one, by padding depth alone.
        pool: Window and stride of a pooling or upsampling layer.
    """

    kernel: Size = "height"
    stride: Size = "height"
    pool: Size = "height"

    def kernel_for(self, height: int) -> int:
        """Return the depth taps of a convolution with a kernel of that height."""
        return height if self.kernel == "height" else self.kernel

    def stride_for(self, height: int) -> int:
        """Return the depth stride of a convolution with that stride along height."""
        return height if self.stride == "height" else self.stride

    def pool_for(self, height: int) -> int:
        """Return the depth of a pooling window, stride or upsampling factor of that height."""
        return height if self.pool == "height" else self.pool

    @property
    def keeps_depth(self) -> bool:
        """Whether convolutions must give as many slices as they take."""
        return self.stride == 1


ISOTROPIC = DepthRule()
SLICEWISE = DepthRule(1, 1, 1)
POLICIES: Mapping[str, DepthRule] = {
    "isotropic": ISOTROPIC,
    "preserve": DepthRule("height", 1, 1),
    "slicewise": SLICEWISE,
}
POLICY_NAMES = (*POLICIES, "spacing")

Choice = str | DepthRule
PolicyLike = Choice | Mapping[str, Any] | Sequence[Any]


@dataclass(frozen=True)
class DepthPolicy:
    """Which rule holds where.

    Args:
        by_layer: (pattern, choice) pairs; the first pattern that matches a layer's name or path wins.
        by_stage: One choice per stage, the last for all deeper ones. A stage ends where height is halved.
        spacing: (depth, height, width) in mm, for the choice "spacing".
    """

    by_layer: tuple[tuple[str, Choice], ...]
    by_stage: tuple[Choice, ...]
    spacing: tuple[float, float, float] | None

    def rule_for(self, path: str, flow: Flow) -> DepthRule:
        """Return the rule for a layer that reads a tensor.

        Args:
            path: Name of the layer, after the names of the models around it.
            flow: The tensor.
        """
        choice = self._choice_for(path, flow)
        if isinstance(choice, DepthRule):
            return choice
        return self._by_spacing(flow) if choice == "spacing" else POLICIES[choice]

    def name_for(self, path: str, flow: Flow) -> str:
        """Return how the plan calls the rule of a layer.

        Args:
            path: As for `rule_for`.
            flow: As for `rule_for`.
        """
        choice = self._choice_for(path, flow)
        return choice if isinstance(choice, str) else f"{choice.kernel}/{choice.stride}/{choice.pool}"

    def unmatched(self, paths: Sequence[str]) -> list[str]:
        """Return the patterns that match none of the paths."""
        return [name for name, _ in self.by_layer if not any(_matches(name, path) for path in paths)]

    def _choice_for(self, path: str, flow: Flow) -> Choice:
        for pattern, choice in self.by_layer:
            if _matches(pattern, path):
                return choice
        return self.by_stage[min(stage_of(flow), len(self.by_stage) - 1)]

    def _by_spacing(self, flow: Flow) -> DepthRule:
        if self.spacing is None:
            return ISOTROPIC
        depth, height = self.spacing[0] * flow.reduction[0], min(self.spacing[1:]) * flow.reduction[1]
        # As nnU-Net (Isensee 2021, 10.1038/s41592-020-01008-z): an axis joins in below twice the finest.
        return SLICEWISE if depth >= 2 * height else ISOTROPIC


def stage_of(flow: Flow) -> int:
    """Return how often height has been halved before a tensor."""
    return max(0, round(math.log2(flow.reduction[1])))


def read_policy(value: PolicyLike, spacing: Sequence[float] | None, *, network: str) -> DepthPolicy:
    """Return the policy that a user wrote.

    Args:
        value: A name, a `DepthRule`, a mapping {layer pattern: choice} with an optional "default", a mapping
            of `kernel`, `stride`, `pool`, or a sequence with one choice per stage.
        spacing: (depth, height, width) in mm; needed by the choice "spacing".
        network: Name for messages.

    Raises:
        LiftError: An unknown name, a number below 1, or "spacing" without a spacing.
    """
    if spacing is not None and (len(spacing) != 3 or any(not value > 0 for value in spacing)):
        raise _fault(
            network, f"spacing must be three numbers above 0, (depth, height, width) in mm; got {spacing}."
        )
    by_layer: tuple[tuple[str, Choice], ...] = ()
    by_stage: tuple[Choice, ...]
    if isinstance(value, Mapping) and not _is_rule(value):
        by_layer = tuple((key, _choice(item, network)) for key, item in value.items() if key != "default")
        by_stage = (_choice(value.get("default", "isotropic"), network),)
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        by_stage = tuple(_choice(item, network) for item in value)
    else:
        by_stage = (_choice(value, network),)
    if spacing is None and "spacing" in (*by_stage, *(choice for _, choice in by_layer)):
        raise _fault(network, "depth_policy 'spacing' needs spacing=(depth, height, width) in mm.")
    return DepthPolicy(by_layer, by_stage, None if spacing is None else _triple(spacing))


def with_depth_kernel(value: PolicyLike, kernel: int) -> PolicyLike:
    """Return a policy as it was written, with another number of taps along depth for every convolution.

    >>> with_depth_kernel("preserve", 5)
    DepthRule(kernel=5, stride=1, pool=1)

    Args:
        value: See `read_policy`; the choice "spacing" stays as it is, since it decides about kernels itself.
        kernel: Taps along depth.
    """
    if isinstance(value, str):
        return replace(POLICIES[value], kernel=kernel) if value in POLICIES else value
    if isinstance(value, DepthRule):
        return replace(value, kernel=kernel)
    if isinstance(value, Mapping) and _is_rule(value):
        return {**value, "kernel": kernel}
    if isinstance(value, Mapping):
        return {key: with_depth_kernel(choice, kernel) for key, choice in value.items()} | (
            {} if "default" in value else {"default": replace(ISOTROPIC, kernel=kernel)}
        )
    return [with_depth_kernel(choice, kernel) for choice in value]


def _is_rule(value: Mapping[str, Any]) -> bool:
    return bool(value) and set(value) <= {field.name for field in fields(DepthRule)}


def _choice(value: Value, network: str) -> Choice:
    rule = DepthRule(**value) if isinstance(value, Mapping) and _is_rule(value) else value
    if isinstance(rule, DepthRule):
        sizes = (rule.kernel, rule.stride, rule.pool)
        if all(size == "height" or (isinstance(size, int) and size > 0) for size in sizes):
            return rule
        raise _fault(
            network, f"a depth rule takes 'height' or whole numbers above 0; got kernel/stride/pool {sizes}."
        )
    if rule in POLICY_NAMES:
        return str(rule)
    raise _fault(network, f"unknown depth_policy {value!r}; there are {', '.join(POLICY_NAMES)}.")


def _fault(network: str, reason: str) -> LiftError:
    return LiftError(network, [Problem("depth_policy", "setting", "", reason)])


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def _matches(pattern: str, path: str) -> bool:
    return fnmatchcase(path, pattern) or fnmatchcase(path.rsplit("/", 1)[-1], pattern)
