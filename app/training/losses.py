"""What a training minimises: cross-entropy or focal loss of float32 logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from voxlift.app.config import TrainerSettings

Loss = Callable[[Any, Any], Any]


def build_loss(trainer: TrainerSettings, *, classes: int, soft_labels: bool = False) -> Loss:
    """The loss of each example of a batch.

    Args:
        trainer: its kind, smoothing and the focal exponent.
        classes: number of classes K.
        soft_labels: labels come as rows [B, K] (mixup made them soft) instead of class indices [B].

    Returns:
        A function of labels and logits [B, K], which gives float32 [B].
    """
    gamma = trainer.focal_gamma if trainer.loss == "focal" else 0.0

    def loss(labels: Any, logits: Any) -> Any:  # noqa: ANN401 - a backend's tensors
        targets = labels if soft_labels else ops.one_hot(ops.reshape(labels, (-1,)), classes)
        return focal_loss(smooth_labels(targets, trainer.label_smoothing), logits, gamma=gamma)

    return loss


def smooth_labels(targets: Any, smoothing: float) -> Any:  # noqa: ANN401 - a backend's tensor
    """Rows [B, K] that give away `smoothing` of their weight to all classes alike.

    Source: Szegedy et al. (2016), Rethinking the Inception Architecture, doi:10.1109/CVPR.2016.308.
    """
    targets = ops.cast(targets, "float32")
    return targets * (1.0 - smoothing) + smoothing / targets.shape[-1] if smoothing else targets


def focal_loss(targets: Any, logits: Any, *, gamma: float) -> Any:  # noqa: ANN401 - a backend's tensors
    """Cross-entropy [B] in which each class's term counts (1 - p) ** gamma; plain cross-entropy for gamma 0.

    Args:
        targets: rows [B, K] that sum to 1.
        logits: [B, K] of any float dtype; computed in float32.
        gamma: 0 or more; the larger, the less a well classified example counts.

    Source: Lin et al. (2017), Focal Loss for Dense Object Detection, doi:10.1109/ICCV.2017.324.
    """
    log_p = keras.ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    terms = targets * log_p
    if gamma:
        # 1 - p from log p without cancellation, and away from 0, where a power below 1 has no slope.
        terms = terms * ops.power(ops.maximum(-ops.expm1(log_p), 1e-7), gamma)
    return -ops.sum(terms, axis=-1)
