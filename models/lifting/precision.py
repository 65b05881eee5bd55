"""Compute a layer in a chosen precision, whatever precision it was built for."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from voxlift.models.lifting.types import Layer


class _ComputePolicy(keras.DTypePolicy):
    """A policy that computes in one precision; its other `variable_dtype` makes Keras cast the weights."""

    @property
    def variable_dtype(self) -> str:
        return "none"


@contextmanager
def compute_in(layer: Layer, precision: str) -> Iterator[None]:
    """Let a layer and its own layers compute in a precision; their weights are cast when they are read.

    Args:
        layer: The layer; its own policy is restored at the end.
        precision: "float32" or "float64".
    """
    parts = list(layer._flatten_layers())  # noqa: SLF001  # Keras has no public access to a layer's layers
    policies = [part.dtype_policy for part in parts]
    try:
        for part in parts:
            part.dtype_policy = _ComputePolicy(precision)
        yield
    finally:
        for part, policy in zip(parts, policies, strict=True):
            part.dtype_policy = policy
