"""What one volume costs one model, for the page of a study of complexity."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What one volume of one size costs one model.

    Attributes:
        model: Name of the group `model`.
        shape: Depth, height, width, channels.
        parameters: Of the model.
        flops: Of one forward pass.
        activation_bytes: Of one forward pass, every layer's output once.
        train_seconds: Of one training step, per volume (all of its slices, for a slice model).
        infer_seconds: Of scoring one volume.
        peak_memory_bytes: Of the measuring process, or the GPU.
        load_per_core: How busy the machine was before.
    """

    model: str
    shape: tuple[int, int, int, int]
    parameters: int
    flops: int
    activation_bytes: int
    train_seconds: float
    infer_seconds: float
    peak_memory_bytes: int
    load_per_core: float

    @property
    def voxels(self) -> int:
        """Voxels of the volume, channels not counted."""
        depth, height, width, _ = self.shape
        return depth * height * width
