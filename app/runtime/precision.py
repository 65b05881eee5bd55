"""Choose the precision that a device computes fast in, and keep layers in float32 that need it.

Some CPU kernels of TensorFlow (2.21) are missing or wrong in half precision. The changed precision is saved
with the network; a network that was trained on a GPU is protected when it is loaded on a CPU.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxlift.app.runtime.devices import backend_name, gpu_capability

log = logging.getLogger("voxlift")

HALF = frozenset({"float16", "bfloat16"})
# Of the largest value: rounding in another order stays below it through fifty layers.
FLOAT32_TOLERANCE = 1e-4
HALF_TOLERANCE = 2e-2  # bfloat16 keeps eight bits: each rounding moves a value by up to 0.4 %


@dataclass(frozen=True)
class Precision:
    """A Keras dtype policy and the reason for it."""

    policy: str
    reason: str


def choose_precision(
    precision: str, *, gpu_capability: tuple[int, int] | None, cpu_flags: frozenset[str]
) -> Precision:
    """Return the dtype policy for a device.

    Args:
        precision: `auto`, or the name of a policy that is taken as it is.
        gpu_capability: CUDA compute capability (major, minor); None without a GPU.
        cpu_flags: The processor's feature names as Linux spells them.

    >>> choose_precision("auto", gpu_capability=(9, 0), cpu_flags=frozenset()).policy
    'mixed_bfloat16'
    """
    if precision != "auto":
        return Precision(precision, "as set")
    if gpu_capability is not None:
        return _choose_for_gpu(gpu_capability)
    native = sorted(cpu_flags & {"avx512_bf16", "amx_bf16"})
    if native:
        return Precision("mixed_bfloat16", f"the CPU computes in bfloat16 ({', '.join(native)})")
    return Precision("float32", "the CPU has no bfloat16 arithmetic, so mixed precision would be emulated")


def _choose_for_gpu(capability: tuple[int, int]) -> Precision:
    found = f"the GPU's compute capability is {capability[0]}.{capability[1]}"
    if capability >= (8, 0):
        return Precision("mixed_bfloat16", f"{found}: bfloat16 tensor cores, and no loss scaling needed")
    if capability >= (7, 0):
        return Precision("mixed_float16", f"{found}: float16 tensor cores, no bfloat16")
    return Precision("float32", f"{found}: no tensor cores")


def read_cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the processor's feature names on Linux; empty elsewhere (float32 is then chosen)."""
    if not cpuinfo.exists():
        return frozenset()
    for line in cpuinfo.read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def rounding_tolerance(network: Any) -> float:  # noqa: ANN401 - untyped Keras
    """Return how far two ways to compute a network may differ, relative to the largest value."""
    layers = network._flatten_layers(include_self=False)  # noqa: SLF001 - Keras has no public walk into nested networks
    is_half = any(getattr(layer, "compute_dtype", None) in HALF for layer in layers)
    return HALF_TOLERANCE if is_half else FLOAT32_TOLERANCE


def keep_logits_precise(network: Any) -> None:  # noqa: ANN401 - untyped Keras
    """Let the layer of the logits compute in float32, whatever the other layers compute in.

    Our own heads already do; this is for a user's network.
    """
    head = network.layers[-1]
    if head.compute_dtype in HALF:
        log.info("float32 instead of %s for the logits (%s)", head.compute_dtype, head.name)
        head.dtype_policy = "float32"


def protect_training(network: Any) -> None:  # noqa: ANN401 - untyped Keras
    """Make a network safe to train on this device, and log the changed layers."""
    message = "float32 instead of bfloat16 for convolutions on few slices"
    _protect(network, protect_shallow_convolutions, message)
    protect_scoring(network)


def protect_scoring(network: Any) -> None:  # noqa: ANN401 - untyped Keras
    """Make a network able to score on this device, and log the changed layers."""
    _protect(network, protect_pooling, "float32 instead of float16 for pooling, which has no float16 kernel")


def _protect(network: Any, change: Callable[[Any], list[str]], message: str) -> None:  # noqa: ANN401 - as above
    """Change layers where TensorFlow computes on the CPU."""
    if backend_name() != "tensorflow" or gpu_capability() is not None:
        return
    names = change(network)
    if names:
        log.info("%s: %s", message, ", ".join(names))


def protect_shallow_convolutions(network: Any) -> list[str]:  # noqa: ANN401 - untyped Keras
    """Let 3D convolutions on few slices compute in float32 instead of bfloat16.

    TensorFlow's bfloat16 kernel for the filter gradient reads uninitialised memory where the depth is not
    larger than the kernel's: seen as NaN after a few steps (2.21, AVX512-BF16; depth 2 under a kernel of 3,
    depth 4 under one of 5). Layers that compute this gradient in another way are left alone.

    Returns:
        The names of the changed layers.
    """
    import keras

    from voxlift.models.layers.few_positions import FewPositionsConv3D, is_shallow

    changed = []
    for layer in network._flatten_layers():  # noqa: SLF001 - Keras has no public walk into nested networks
        is_bfloat = getattr(layer, "compute_dtype", None) == "bfloat16"
        if not (isinstance(layer, keras.layers.Conv3D) and is_bfloat):
            continue
        is_safe = isinstance(layer, FewPositionsConv3D) and layer.uses_custom_kernels
        if not is_safe and is_shallow(layer.input.shape[1], layer.kernel_size[0]):
            layer.dtype_policy = "float32"
            changed.append(str(layer.name))
    return changed


def protect_pooling(network: Any) -> list[str]:  # noqa: ANN401 - untyped Keras
    """Let 3D pooling compute in float32 instead of float16.

    TensorFlow has no float16 CPU kernel for MaxPool3D and AvgPool3D, which adaptive pooling calls too; all
    other operations of our networks have one.

    Returns:
        The names of the changed layers.
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
