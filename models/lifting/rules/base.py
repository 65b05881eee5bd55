"""What a rule takes and gives: the vocabulary in which every lifting rule is written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from voxlift.models.lifting.depth import DepthRule
from voxlift.models.lifting.errors import RefusedError
from voxlift.models.lifting.flow import Flow, Shape
from voxlift.models.lifting.inflate import Array
from voxlift.models.lifting.kinds import Layer, LayerClass, Value

Weights = list[Array]
Transfer = Callable[[Weights], Weights]


@dataclass(frozen=True)
class Follower:
    """A convolution or pool behind a padding layer: its 2D configuration and its depth rule."""

    config: Mapping[str, Any]
    rule: DepthRule

    @property
    def is_pool(self) -> bool:
        """Whether it is a pool, not a convolution."""
        return "pool_size" in self.config


@dataclass(frozen=True)
class LayerCall:
    """A 2D layer (or raw operation) where it is called, and all that its rule may want to know.

    Args:
        layer: The 2D layer.
        path: Its name, after the names of the models around it.
        config: Its configuration, with what the lift changes in 2D already (filters, classes); a copy.
        weight_shapes: Shapes of its 2D weights, after the same changes.
        inputs: The lifted tensors that it reads.
        shapes_2d: Shapes of its 2D outputs, after the same changes.
        rule: How its depth follows its height.
        scheme: "centre", "mean", "acs" or "random".
        is_fused: Whether batch normalisation takes the fused kernel.
        next_windows: The convolutions and pools that read its output, where it is a padding layer.
        args: Positional arguments of the call, for raw operations; symbolic tensors of 2D in place.
        kwargs: Keyword arguments of the call, the same.
    """

    layer: Layer
    path: str
    config: Mapping[str, Any]
    weight_shapes: tuple[Shape, ...]
    inputs: tuple[Flow, ...]
    shapes_2d: tuple[Shape, ...]
    rule: DepthRule
    scheme: str
    is_fused: bool = True
    next_windows: tuple[Follower, ...] = ()
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def flow(self) -> Flow:
        """The first tensor that the layer reads."""
        return self.inputs[0]

    def volume(self) -> Flow:
        """Return the one volume that the layer reads.

        Raises:
            RefusedError: It reads something else, or data that is not channels-last.
        """
        if self.config.get("data_format", "channels_last") == "channels_first":
            raise RefusedError(
                "data_format='channels_first' has no lift.",
                "Build the 2D network with data_format='channels_last' (kernels are stored alike: "
                "set_weights(get_weights()) moves them) and lift that.",
            )
        if len(self.inputs) != 1 or not self.flow.is_volume:
            raise RefusedError(
                f"expected one tensor [B, D, H, W, C], received axes {[flow.axes for flow in self.inputs]}."
            )
        return self.flow


@dataclass(frozen=True)
class Extra:
    """A layer without weights that the lift sets before or behind another."""

    layer_class: LayerClass
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Lifted:
    """What a rule decides: the 3D layer, its output, and where its weights come from.

    Args:
        layer_class: Class of the 3D layer; None where the layer is left out and its input passes on.
        config: Configuration for `layer_class.from_config`.
        outputs: The tensors that it gives.
        weight_shapes: Shapes of its weights.
        transfer: Function from the 2D weights to the 3D weights; None leaves the layer's own initial values.
        source: Where the weights come from, for the plan.
        before: Layers set before it.
        after: Layers set behind it.
        window: Kernel or pool and stride, for the plan.
        inexact: Why the lifted layer can differ from the 2D one on a volume that is constant along depth;
            empty if it cannot.
        note: What else the user should know.
        call_args: Positional arguments for the layer, symbolic tensors of 2D in place; None for those of 2D.
        call_kwargs: Keyword arguments, where `call_args` is given.
    """

    layer_class: LayerClass
    config: Mapping[str, Any]
    outputs: tuple[Flow, ...]
    weight_shapes: tuple[Shape, ...] = ()
    transfer: Transfer | None = None
    source: str = ""
    before: tuple[Extra, ...] = ()
    after: tuple[Extra, ...] = ()
    window: str = ""
    inexact: str = ""
    note: str = ""
    call_args: tuple[Any, ...] | None = None
    call_kwargs: Mapping[str, Any] | None = None

    def become(self, **changes: Value) -> "Lifted":
        """Return this decision with some parts changed."""
        return replace(self, **changes)


LiftRule = Callable[[LayerCall], Lifted]
