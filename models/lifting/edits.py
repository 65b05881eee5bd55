"""What a lift changes in the 2D network before it goes to 3D: a layer's configuration and its 2D weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import keras

from voxlift.models.lifting.flow import Shape
from voxlift.models.lifting.kinds import Layer, Tensor
from voxlift.models.lifting.rules.answers import copy_weights
from voxlift.models.lifting.rules.base import LayerCall, Lifted, Transfer, Weights


@dataclass(frozen=True)
class Edit:
    """The change of one 2D layer.

    Args:
        config: New values in its configuration.
        cut: Function from its 2D weights to the changed 2D weights; None leaves them as they are.
        weight_shapes: Shapes of the changed 2D weights; None for as they are.
        is_fresh: Whether the layer starts from its initialiser, as a new head does.
        is_dropped: Whether the layer is left out.
        source: A word for the plan on what became of the weights.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    cut: Transfer | None = None
    weight_shapes: tuple[Shape, ...] | None = None
    is_fresh: bool = False
    is_dropped: bool = False
    source: str = ""

    def join(self, other: "Edit") -> "Edit":
        """Return both changes in one; `other` has the last word."""
        return Edit(
            {**self.config, **other.config},
            _chain(self.cut, other.cut) if self.cut and other.cut else other.cut or self.cut,
            other.weight_shapes or self.weight_shapes,
            self.is_fresh or other.is_fresh,
            self.is_dropped or other.is_dropped,
            other.source or self.source,
        )


@dataclass
class Edits:
    """All changes of one lift.

    Args:
        by_layer: The change of each layer, by the layer's id.
        channels: Changed sizes of last axes, by the symbolic tensor's id.
    """

    by_layer: dict[int, Edit] = field(default_factory=dict)
    channels: dict[int, int] = field(default_factory=dict)

    def add(self, layer: Layer, edit: Edit) -> None:
        """Add a change of a layer to those known.

        Args:
            layer: The 2D layer.
            edit: The change.
        """
        known = self.by_layer.get(id(layer))
        self.by_layer[id(layer)] = edit if known is None else known.join(edit)

    def cut_of(self, layer: Layer) -> Transfer:
        """Return the function from a layer's 2D weights to the changed 2D weights."""
        return self.by_layer.get(id(layer), Edit()).cut or copy_weights

    def shape_of(self, tensor: Tensor) -> Shape:
        """Return a 2D tensor's shape after the changes."""
        shape = tuple(tensor.shape)
        return (*shape[:-1], self.channels[id(tensor)]) if id(tensor) in self.channels else shape

    def apply(self, call: LayerCall) -> LayerCall:
        """Return a call with its layer's change in it."""
        edit = self.by_layer.get(id(call.layer))
        if edit is None:
            return call
        shapes = call.weight_shapes if edit.weight_shapes is None else edit.weight_shapes
        return replace(call, config={**call.config, **edit.config}, weight_shapes=shapes)

    def finish(self, call: LayerCall, lifted: Lifted) -> Lifted:
        """Return a rule's decision with the 2D weights cut before they are inflated.

        Args:
            call: The call that the rule decided on.
            lifted: Its decision.
        """
        edit = self.by_layer.get(id(call.layer), Edit())
        if edit.is_dropped:
            return Lifted(None, {}, (call.flow,), note=edit.source)
        if edit.is_fresh:
            return lifted.become(transfer=None, source=edit.source)
        if edit.cut is None or lifted.transfer is None:
            return lifted
        source = f"{lifted.source}; {edit.source}" if edit.source else lifted.source
        return lifted.become(transfer=_chain(edit.cut, lifted.transfer), source=source)


def float32_edit(layer: Layer) -> Edit:
    """Return the change that makes a layer compute in float32, where it does not."""
    is_half = getattr(layer, "compute_dtype", None) in {"float16", "bfloat16"}
    return Edit({"dtype": "float32"}) if is_half and isinstance(layer, keras.layers.Layer) else Edit()


def _chain(first: Transfer, second: Transfer) -> Transfer:
    def both(weights: Weights) -> Weights:
        return second(first(weights))

    return both
