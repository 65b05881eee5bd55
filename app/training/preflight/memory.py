"""Whether a training fits into the memory of the device, and which batch size would."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.runtime.devices import Memory

if TYPE_CHECKING:
    from voxlift.models.memory import TrainingMemory


WEIGHT_BYTES = 4
MARGIN = 0.9  # of what is free: the estimate misses the workspaces of kernels
REDUCIBLE = (
    "preprocess.shape (or a coarser preprocess.spacing), model.filters, or precision=mixed_bfloat16, "
    "which halves the activations"
)


@dataclass(frozen=True)
class Need:
    """Bytes that one step of training and of scoring need.

    Attributes:
        training: Of a step.
        batch: Samples of a batch, as the network takes them: slices or volumes.
        per_setting: Samples of a batch for each unit of `trainer.batch_size`.
        scoring: Of scoring a batch.
        engine: Graph and kernels, whatever the batch.
    """

    training: TrainingMemory
    batch: int
    per_setting: int
    scoring: int
    engine: int = 0

    @property
    def bytes(self) -> int:
        """The larger of training and scoring, which do not happen at the same time, plus the engine's."""
        return max(self.training.total(self.batch), self.scoring) + self.engine


def slot_bytes(network: Any) -> int:  # noqa: ANN401 - untyped Keras
    """Return the bytes of the optimizer of a compiled network: moments, averages, accumulated gradients."""
    optimizer = network.optimizer
    if not optimizer.built:
        optimizer.build(network.trainable_variables)
    return sum(WEIGHT_BYTES * math.prod(variable.shape) for variable in optimizer.variables)


def refuse_what_cannot_fit(need: Need, memory: Memory, settings: TrainSettings, *, sample: str) -> None:
    """Pass when the estimate leaves a margin.

    Args:
        need: Of the network.
        memory: What is free.
        settings: Of the training.
        sample: The shape of one sample, for the message.

    Raises:
        SettingsError: With the batch size that would fit, or what to reduce where none would.
    """
    free = int(MARGIN * memory.free)
    if need.bytes <= free:
        return
    batch = settings.trainer.batch_size
    fitting = min(need.training.largest_batch(free - need.engine) // need.per_setting, batch)
    while fitting and need.scoring * fitting // batch > free - need.engine:
        fitting -= 1
    lacking = (
        f"The training does not fit: trainer.batch_size={batch} ({need.batch} x {sample}) needs about "
        f"{_gb(need.bytes)} ({describe_parts(need)}), and {memory.name} has {_gb(memory.free)} free."
    )
    if not fitting:
        raise SettingsError(f"{lacking} Even a batch of one does not fit: reduce {REDUCIBLE}.")
    steps = -(-batch // fitting)
    raise SettingsError(
        f"{lacking} trainer.batch_size={fitting} would fit; with trainer.accumulate={steps} as well, "
        f"{steps} such batches make one step."
    )


def describe_parts(need: Need) -> str:
    """Return the parts of the sum in words, largest first."""
    training = need.training
    parts: Sequence[tuple[str, int]] = (
        ("activations", need.batch * training.per_sample),
        ("weights", training.weights),
        ("gradients", training.gradients),
        ("optimizer", training.slots),
        ("graph and kernels", need.engine),
        ("scoring", need.scoring if need.scoring > training.total(need.batch) else 0),
    )
    largest = sorted((part for part in parts if part[1]), key=lambda part: -part[1])
    return ", ".join(f"{name} {_gb(size)}" for name, size in largest)


def _gb(size: float) -> str:
    return f"{size / 1e9:.3g} GB"
