"""Which precision a device computes fast in, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
