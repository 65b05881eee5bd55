"""The loss functions of training: cross-entropy and focal loss of float32 logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from keras import ops

from voxlift.models.backend import Tensor

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def build_loss(
    kind: str = "cross_entropy",
    *,
    classes: int,
    focal_gamma: float = 2.0,
    label_smoothing: float = 0.0,
    soft_labels: bool = False,
) -> Loss:
    """Return the loss per example of a batch.

    Args:
        kind: `cross_entropy` or `focal`.
        classes: Number of classes K.
        focal_gamma: Exponent of the focal loss; unused by cross-entropy.
        label_smoothing: Share of each label's weight that is spread evenly over all classes.
        soft_labels: Whether labels are rows [B, K] (mixup makes them soft) instead of class indices [B].

    Returns:
        A function of labels and logits [B, K] that returns float32 [B].
    """
    gamma = focal_gamma if kind == "focal" else 0.0

    def loss(labels: Tensor, logits: Tensor) -> Tensor:
        targets = labels if soft_labels else ops.one_hot(ops.reshape(labels, (-1,)), classes)
        return focal_loss(smooth_labels(targets, label_smoothing), logits, gamma=gamma)

    return loss


def smooth_labels(targets: Tensor, smoothing: float) -> Tensor:
    """Return targets [B, K] with a share of their weight spread evenly over all classes.

    Args:
        targets: Rows [B, K] that sum to 1.
        smoothing: The share, from 0 to 1.

    Source: Szegedy et al. (2016), Rethinking the Inception Architecture, doi:10.1109/CVPR.2016.308.
    """
    targets = ops.cast(targets, "float32")
    return targets * (1.0 - smoothing) + smoothing / targets.shape[-1] if smoothing else targets


def focal_loss(targets: Tensor, logits: Tensor, *, gamma: float) -> Tensor:
    """Return the cross-entropy [B] with each class's term weighted by (1 - p) ** gamma.

    Args:
        targets: Rows [B, K] that sum to 1.
        logits: [B, K] of any float dtype; computed in float32.
        gamma: 0 or more. 0 is plain cross-entropy; the larger, the less well classified examples count.

    Source: Lin et al. (2017), Focal Loss for Dense Object Detection, doi:10.1109/ICCV.2017.324.
    """
    log_p = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    terms = targets * log_p
    if gamma:
        # 1 - p from log p without cancellation, and away from 0, where a power below 1 has no finite slope.
        terms = terms * ops.power(ops.maximum(-ops.expm1(log_p), 1e-7), gamma)
    return -ops.sum(terms, axis=-1)
