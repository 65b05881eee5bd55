"""Changes of a 2D network before it is lifted: configurations and 2D weights of its layers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from voxlift.models.lifting.rules.base import LayerCall, Lifted, copy_weights
from voxlift.models.lifting.types import Layer, Shape, Tensor, Transfer, Weights


@dataclass(frozen=True)
class Edit:
    """The change of one 2D layer.

    Args:
        config: New values in its configuration.
        cut: Function from its 2D weights to the changed 2D weights; None leaves them unchanged.
        weight_shapes: Shapes of the changed 2D weights; None if unchanged.
        is_fresh: Whether the layer starts from its initialiser, as a new head does.
        is_dropped: Whether the layer is left out.
        source: What becomes of the weights, for the plan.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    cut: Transfer | None = None
    weight_shapes: tuple[Shape, ...] | None = None
    is_fresh: bool = False
    is_dropped: bool = False
    source: str = ""

    def merge(self, other: "Edit") -> "Edit":
        """Return both changes in one; `other` takes precedence."""
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
        channels: New sizes of last axes, by the symbolic tensor's id.
    """

    by_layer: dict[int, Edit] = field(default_factory=dict)
    channels: dict[int, int] = field(default_factory=dict)

    def add(self, layer: Layer, edit: Edit) -> None:
        """Add a change of a layer to its earlier changes.

        Args:
            layer: The 2D layer.
            edit: The change.
        """
        known = self.by_layer.get(id(layer))
        self.by_layer[id(layer)] = edit if known is None else known.merge(edit)

    def edit_of(self, layer: Layer) -> Edit:
        """Return the change of a layer, empty if there is none."""
        return self.by_layer.get(id(layer), Edit())

    def cut_of(self, layer: Layer) -> Transfer:
        """Return the function from a layer's 2D weights to the changed 2D weights."""
        return self.edit_of(layer).cut or copy_weights

    def shape_of(self, tensor: Tensor) -> Shape:
        """Return a 2D tensor's shape after the changes."""
        shape = tuple(tensor.shape)
        return (*shape[:-1], self.channels[id(tensor)]) if id(tensor) in self.channels else shape

    def edit_call(self, call: LayerCall) -> LayerCall:
        """Return a call after the change of its layer."""
        edit = self.by_layer.get(id(call.layer))
        if edit is None:
            return call
        shapes = call.weight_shapes if edit.weight_shapes is None else edit.weight_shapes
        return call.replace(config={**call.config, **edit.config}, weight_shapes=shapes)

    def edit_result(self, call: LayerCall, lifted: Lifted) -> Lifted:
        """Return a rule's result in which the 2D weights are cut before they are inflated.

        Args:
            call: The call that the rule received.
            lifted: Its result.
        """
        edit = self.edit_of(call.layer)
        if edit.is_dropped:
            return Lifted(None, {}, (call.spec,), note=edit.source)
        if edit.is_fresh:
            return lifted.replace(transfer=None, source=edit.source)
        if edit.cut is None or lifted.transfer is None:
            return lifted
        source = f"{lifted.source}; {edit.source}" if edit.source else lifted.source
        return lifted.replace(transfer=_chain(edit.cut, lifted.transfer), source=source)


def float32_edit(layer: Layer) -> Edit:
    """Return the change after which a layer computes in float32; empty if it does already."""
    is_half = getattr(layer, "compute_dtype", None) in {"float16", "bfloat16"}
    return Edit({"dtype": "float32"}) if is_half and isinstance(layer, keras.layers.Layer) else Edit()


def _chain(first: Transfer, second: Transfer) -> Transfer:
    def both(weights: Weights) -> Weights:
        return second(first(weights))

    return both
