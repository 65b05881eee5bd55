"""Overfit one batch: a network that cannot has something wrong with data, labels or learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from voxlift.app.training.preflight.speed import repeat, unchanged

STEPS = 60
LEARNT = 0.5  # the batch counts as learnt below this share of the first loss
HIGH = 20.0  # mean or spread of voxels far above what initial weights are made for


@dataclass(frozen=True)
class OverfitResult:
    """The loss of each step on the same batch, and likely causes where it stays high."""

    losses: tuple[float, ...]
    causes: tuple[str, ...]

    @property
    def has_learnt(self) -> bool:
        """Whether the loss of the last steps is low enough."""
        last = float(np.mean(self.losses[-5:]))
        return bool(np.isfinite(last) and last < LEARNT * self.losses[0])

    @property
    def sentence(self) -> str:
        """The result in a line, with likely causes where the batch was not learnt."""
        change = f"the loss of one batch went from {self.losses[0]:.3g} to {self.losses[-1]:.3g}"
        if self.has_learnt:
            return f"The model can learn: {change} in {len(self.losses)} steps."
        likely = " ".join(f"{cause}." for cause in self.causes)
        return f"The model cannot overfit one batch: {change} in {len(self.losses)} steps. {likely}"


def overfit_batch(network: Any, batch: Sequence[Any], *, steps: int = STEPS) -> OverfitResult:  # noqa: ANN401 - untyped Keras
    """Train a compiled network on one batch; afterwards its weights are restored.

    Args:
        network: Compiled, best with a constant learning rate.
        batch: Voxels [B, ...], labels [B] or soft labels [B, K], weights [B].
        steps: Of training.
    """
    recorder = _RecordLoss()
    with unchanged(network):
        repeat(network, batch, steps=steps, callback=recorder)
    return OverfitResult(tuple(recorder.losses), tuple(likely_causes(batch, recorder.losses)))


def likely_causes(batch: Sequence[Any], losses: Sequence[float]) -> list[str]:
    """Return what may keep a batch from being learnt, the most certain first.

    >>> likely_causes([np.ones((2, 3, 3, 3, 1)), np.array([0, 1]), np.ones(2)], [0.7, 0.7])[0]
    'All its voxels are equal: check preprocess.window_hu and preprocess.clip_percentiles'
    """
    voxels, labels = np.asarray(batch[0], np.float32), np.asarray(batch[1])
    causes = [*_causes_in_voxels(voxels), *_causes_in_labels(voxels, labels)]
    if not np.isfinite(losses).all() or losses[-1] > losses[0]:
        causes.append("The loss rises: a lower optimizer.learning_rate, or optimizer.clip_norm, may help")
    if not causes:
        causes.append(
            "A higher optimizer.learning_rate, less model.dropout or weaker augmentation may help, and "
            "labels that do not belong to their images have the same effect"
        )
    return causes


def _causes_in_voxels(voxels: NDArray[np.float32]) -> list[str]:
    if not np.isfinite(voxels).all():
        return ["It holds voxels that are not finite: check preprocess.nonfinite"]
    if voxels.std() == 0:
        return ["All its voxels are equal: check preprocess.window_hu and preprocess.clip_percentiles"]
    if max(abs(float(voxels.mean())), float(voxels.std())) > HIGH:
        moments = f"mean {voxels.mean():.3g}, spread {voxels.std():.3g}"
        return [f"Its intensities are far from one ({moments}): choose preprocess=ct or mri, or a zscore"]
    return []


def _causes_in_labels(voxels: NDArray[np.float32], labels: NDArray[Any]) -> list[str]:
    flat = voxels.reshape(len(voxels), -1)
    targets = labels.reshape(len(labels), -1)
    for i in range(len(flat)):
        for j in range(i):
            if np.array_equal(flat[i], flat[j]) and not np.array_equal(targets[i], targets[j]):
                return ["It holds the same image with two different labels"]
    return []


class _RecordLoss(keras.callbacks.Callback):
    """Records the loss of each step, from the running mean of Keras."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []
        self.mean = 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Take the loss of this step out of the mean."""
        mean, count = float((logs or {}).get("loss", np.nan)), len(self.losses) + 1
        self.losses.append(mean * count - self.mean * (count - 1))
        self.mean = mean
