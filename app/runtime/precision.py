"""Which precision a device computes fast in, and why."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Precision:
    """A Keras dtype policy and why it was chosen."""

    policy: str
    reason: str


def choose_precision(
    precision: str, *, gpu_capability: tuple[int, int] | None, cpu_flags: frozenset[str]
) -> Precision:
    """The policy for this device.

    Args:
        precision: `auto`, or a policy that is taken as it is.
        gpu_capability: CUDA compute capability (major, minor), None without a GPU.
        cpu_flags: the processor's feature names as Linux spells them.

    >>> choose_precision("auto", gpu_capability=(9, 0), cpu_flags=frozenset()).policy
    'mixed_bfloat16'
    """
    if precision != "auto":
        return Precision(precision, "as asked for")
    if gpu_capability is not None:
        return _for_gpu(gpu_capability)
    native = sorted(cpu_flags & {"avx512_bf16", "amx_bf16"})
    if native:
        return Precision("mixed_bfloat16", f"the CPU computes in bfloat16 ({', '.join(native)})")
    return Precision("float32", "the CPU has no bfloat16 arithmetic, so mixed precision would be emulated")


def _for_gpu(capability: tuple[int, int]) -> Precision:
    spoken = f"the GPU's compute capability is {capability[0]}.{capability[1]}"
    if capability >= (8, 0):
        return Precision("mixed_bfloat16", f"{spoken}: bfloat16 tensor cores, and no loss scaling needed")
    if capability >= (7, 0):
        return Precision("mixed_float16", f"{spoken}: float16 tensor cores, no bfloat16")
    return Precision("float32", f"{spoken}: no tensor cores")


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The processor's feature names on Linux; empty elsewhere (float32 is then chosen)."""
    if not cpuinfo.exists():
        return frozenset()
    for line in cpuinfo.read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


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
