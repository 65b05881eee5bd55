"""A lifted body that stays as it is while a new head finds its feet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Body:
    """The layers of a network before its head, those that can be trained."""

    layers: tuple[Any, ...]

    def set_trainable(self, trainable: bool) -> None:  # noqa: FBT001 - the one thing that is set
        """Freeze, statistics of normalisation included, or thaw; compile the network anew afterwards."""
        for layer in self.layers:
            layer.trainable = trainable


def find_body(network: Any) -> Body:  # noqa: ANN401 - untyped Keras
    """All layers with weights of their own but the last one, the head; layers that somebody froze stay so."""
    layers = [layer for layer in network._flatten_layers(include_self=False) if layer._trainable_variables]  # noqa: SLF001 - Keras has no public walk into nested networks
    return Body(tuple(layer for layer in layers[:-1] if layer.trainable))
