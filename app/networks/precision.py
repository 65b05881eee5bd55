"""What mixed precision must not touch in a network, and how far rounding carries its figures."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("voxlift")

HALF = frozenset({"float16", "bfloat16"})
FLOAT32_TOLERANCE = (
    1e-4  # of the largest figure: rounding in another order, through fifty layers, stays below
)
HALF_TOLERANCE = 2e-2  # bfloat16 keeps eight bits: each rounding moves a value by up to 0.4 %


def keep_logits_precise(network: Any) -> None:  # noqa: ANN401 - untyped Keras
    """Let the layer that gives the logits compute in float32, whatever the rest computes in.

    Our own heads do so already; this is for a network that somebody brought along.
    """
    head = network.layers[-1]
    if head.compute_dtype in HALF:
        log.info("float32 instead of %s for the logits (%s)", head.compute_dtype, head.name)
        head.dtype_policy = "float32"


def rounding_tolerance(network: Any) -> float:  # noqa: ANN401 - untyped Keras
    """How far two ways to compute the same network may differ, relative to the largest figure."""
    layers = network._flatten_layers(include_self=False)  # noqa: SLF001 - Keras has no public walk into nested networks
    is_half = any(getattr(layer, "compute_dtype", None) in HALF for layer in layers)
    return HALF_TOLERANCE if is_half else FLOAT32_TOLERANCE
