"""Where TensorFlow's CPU kernels are missing or wrong (2.21), and the layers that compute in float32 instead.

A change of precision is saved with the network; one that was trained on a GPU meets these kernels when it is
loaded on a CPU.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from voxlift.app.runtime.devices import backend_name, gpu_capability

log = logging.getLogger("voxlift")


def protect_training(network: Any) -> None:  # noqa: ANN401 - untyped Keras
    """Make a network safe to train on this device; what is changed is logged."""
    told = "float32 instead of bfloat16 for convolutions on few slices"
    _protect(network, protect_shallow_convolutions, told)
    protect_scoring(network)


def protect_scoring(network: Any) -> None:  # noqa: ANN401 - untyped Keras
    """Make a network able to score on this device; what is changed is logged."""
    _protect(network, protect_pooling, "float32 instead of float16 for pooling, which has no other kernel")


def _protect(network: Any, change: Callable[[Any], list[str]], told: str) -> None:  # noqa: ANN401 - as above
    """Change layers where TensorFlow computes on the CPU, and log which."""
    if backend_name() != "tensorflow" or gpu_capability() is not None:
        return
    names = change(network)
    if names:
        log.info("%s: %s", told, ", ".join(names))


def protect_shallow_convolutions(network: Any) -> list[str]:  # noqa: ANN401 - untyped Keras
    """Let 3D convolutions on few slices compute in float32 instead of bfloat16; the names of those changed.

    TensorFlow's bfloat16 kernel for the filter gradient reads memory that nobody wrote where the depth is not
    larger than the kernel's: seen as NaN after a few steps (2.21, AVX512-BF16; depth 2 under a kernel of 3,
    depth 4 under one of 5). Layers that take another route to that gradient are left alone.
    """
    import keras

    from voxlift.models.layers.few_positions import FewPositionsConv3D, is_shallow

    changed = []
    for layer in network._flatten_layers():  # noqa: SLF001 - Keras has no public walk into nested networks
        is_bfloat = getattr(layer, "compute_dtype", None) == "bfloat16"
        if not (isinstance(layer, keras.layers.Conv3D) and is_bfloat):
            continue
        is_safe = isinstance(layer, FewPositionsConv3D) and layer.has_own_routes
        if not is_safe and is_shallow(layer.input.shape[1], layer.kernel_size[0]):
            layer.dtype_policy = "float32"
            changed.append(str(layer.name))
    return changed


def protect_pooling(network: Any) -> list[str]:  # noqa: ANN401 - untyped Keras
    """Let 3D pooling compute in float32 instead of float16; the names of those changed.

    TensorFlow has no float16 kernel of MaxPool3D and AvgPool3D for CPUs, which adaptive pooling calls too;
    alone among the operations of our networks.
    """
    import keras

    layers = keras.layers
    windows = layers.MaxPooling3D | layers.AveragePooling3D
    adaptive = layers.AdaptiveMaxPooling3D | layers.AdaptiveAveragePooling3D
    changed = []
    for layer in network._flatten_layers():  # noqa: SLF001 - as above
        if isinstance(layer, windows | adaptive) and layer.compute_dtype == "float16":
            layer.dtype_policy = "float32"
            changed.append(str(layer.name))
    return changed
