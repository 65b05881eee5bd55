"""The depth policy: how kernel, stride and pool along depth follow height, per network, stage or layer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeAlias

from voxlift.models.lifting.errors import LiftError, setting_error
from voxlift.models.lifting.types import TensorSpec, Value

Size: TypeAlias = int | Literal["height"]


@dataclass(frozen=True)
class DepthRule:
    """The sizes of one layer along depth: "height" (the same as along height) or a number.

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
        """Whether the output of a convolution must have as many slices as its input."""
        return self.stride == 1


ISOTROPIC = DepthRule()
SLICEWISE = DepthRule(1, 1, 1)
POLICIES: Mapping[str, DepthRule] = {
    "isotropic": ISOTROPIC,
    "preserve": DepthRule("height", 1, 1),
    "slicewise": SLICEWISE,
}
POLICY_NAMES = (*POLICIES, "spacing")

Choice: TypeAlias = str | DepthRule
PolicyLike: TypeAlias = Choice | Mapping[str, Any] | Sequence[Any]


@dataclass(frozen=True)
class DepthPolicy:
    """The depth rule of every layer of a network.

    Args:
        by_layer: (pattern, choice) pairs; the first pattern that matches a layer's name or path applies.
        by_stage: One choice per stage, the last one for all deeper stages. A stage ends where height is
            halved.
        spacing: (depth, height, width) in mm, for the choice "spacing".
    """

    by_layer: tuple[tuple[str, Choice], ...]
    by_stage: tuple[Choice, ...]
    spacing: tuple[float, float, float] | None

    def rule_for(self, path: str, spec: TensorSpec) -> DepthRule:
        """Return the depth rule of a layer.

        Args:
            path: Name of the layer, after the names of the models around it.
            spec: The tensor that the layer reads.
        """
        choice = self._choice_for(path, spec)
        if isinstance(choice, DepthRule):
            return choice
        return self._rule_by_spacing(spec) if choice == "spacing" else POLICIES[choice]

    def name_for(self, path: str, spec: TensorSpec) -> str:
        """Return the name of a layer's depth rule for the plan.

        Args:
            path: As for `rule_for`.
            spec: As for `rule_for`.
        """
        choice = self._choice_for(path, spec)
        return choice if isinstance(choice, str) else f"{choice.kernel}/{choice.stride}/{choice.pool}"

    def unmatched(self, paths: Sequence[str]) -> list[str]:
        """Return the patterns that match none of the paths."""
        return [name for name, _ in self.by_layer if not any(_matches(name, path) for path in paths)]

    def _choice_for(self, path: str, spec: TensorSpec) -> Choice:
        for pattern, choice in self.by_layer:
            if _matches(pattern, path):
                return choice
        stage = max(0, round(math.log2(spec.downsampling[1])))  # how often height has been halved
        return self.by_stage[min(stage, len(self.by_stage) - 1)]

    def _rule_by_spacing(self, spec: TensorSpec) -> DepthRule:
        if self.spacing is None:
            return ISOTROPIC
        depth, height = self.spacing[0] * spec.downsampling[0], min(self.spacing[1:]) * spec.downsampling[1]
        # As nnU-Net (Isensee 2021, 10.1038/s41592-020-01008-z): an axis is left out while its spacing is at
        # least twice the finest.
        return SLICEWISE if depth >= 2 * height else ISOTROPIC


def read_policy(value: PolicyLike, spacing: Sequence[float] | None, *, network: str) -> DepthPolicy:
    """Return the policy described by a setting.

    Args:
        value: A name, a `DepthRule`, a mapping {layer pattern: choice} with an optional "default", a mapping
            of `kernel`, `stride`, `pool`, or a sequence with one choice per stage.
        spacing: (depth, height, width) in mm; required by the choice "spacing".
        network: Name of the network, for messages.

    Raises:
        LiftError: A name is unknown, a number is below 1, or "spacing" is chosen without a spacing.
    """
    if spacing is not None and (len(spacing) != 3 or any(not value > 0 for value in spacing)):
        raise _error(
            network, f"expected spacing as (depth, height, width) in mm, all above 0; received {spacing}."
        )
    by_layer: tuple[tuple[str, Choice], ...] = ()
    by_stage: tuple[Choice, ...]
    if isinstance(value, Mapping) and not _is_rule(value):
        by_layer = tuple(
            (key, _read_choice(item, network)) for key, item in value.items() if key != "default"
        )
        by_stage = (_read_choice(value.get("default", "isotropic"), network),)
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        by_stage = tuple(_read_choice(item, network) for item in value)
    else:
        by_stage = (_read_choice(value, network),)
    if spacing is None:
        if "spacing" in (*by_stage, *(choice for _, choice in by_layer)):
            raise _error(network, "depth_policy 'spacing' requires spacing=(depth, height, width) in mm.")
        return DepthPolicy(by_layer, by_stage, None)
    return DepthPolicy(by_layer, by_stage, (float(spacing[0]), float(spacing[1]), float(spacing[2])))


def with_depth_kernel(value: PolicyLike, kernel: int) -> PolicyLike:
    """Return a policy setting with another number of taps along depth for every convolution.

    >>> with_depth_kernel("preserve", 5)
    DepthRule(kernel=5, stride=1, pool=1)

    Args:
        value: As for `read_policy`; the choice "spacing" is not changed, since it determines kernels itself.
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


def _read_choice(value: Value, network: str) -> Choice:
    rule = DepthRule(**value) if isinstance(value, Mapping) and _is_rule(value) else value
    if isinstance(rule, DepthRule):
        sizes = (rule.kernel, rule.stride, rule.pool)
        if all(size == "height" or (isinstance(size, int) and size > 0) for size in sizes):
            return rule
        raise _error(
            network,
            f"expected 'height' or whole numbers above 0 for kernel/stride/pool; received {sizes}.",
        )
    if rule in POLICY_NAMES:
        return str(rule)
    raise _error(network, f"expected one of {', '.join(POLICY_NAMES)}; received {value!r}.")


def _error(network: str, reason: str) -> LiftError:
    return setting_error(network, "depth_policy", reason)


def _matches(pattern: str, path: str) -> bool:
    return fnmatchcase(path, pattern) or fnmatchcase(path.rsplit("/", 1)[-1], pattern)
