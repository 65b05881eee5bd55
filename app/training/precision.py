"""What mixed precision must not touch: logits, loss, and the statistics of normalisation."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("voxlift")

WIDE = "float32"


def keep_logits_precise(network: Any) -> None:  # noqa: ANN401 - untyped Keras
    """Let the layer that gives the logits compute in float32, whatever the rest computes in.

    Our own heads do so already; this is for a network that somebody brought along.
    """
    head = network.layers[-1]
    if head.compute_dtype in {"float16", "bfloat16"}:
        log.info("float32 instead of %s for the logits (%s)", head.compute_dtype, head.name)
        head.dtype_policy = WIDE


def imprecise_layers(network: Any) -> list[str]:  # noqa: ANN401 - untyped Keras
    """What is not float32 though it should be: weights, statistics, logits; empty in a sound network."""
    found = [
        f"{layer.name}: {weight.name} is {weight.dtype}"
        for layer in network._flatten_layers()  # noqa: SLF001 - Keras has no public walk into nested networks
        for weight in layer._trainable_variables + layer._non_trainable_variables  # noqa: SLF001 - its own
        if weight.dtype in {"float16", "bfloat16"}
    ]
    dtype = network.outputs[0].dtype
    return found if dtype == WIDE else [*found, f"{network.layers[-1].name}: the logits are {dtype}"]
