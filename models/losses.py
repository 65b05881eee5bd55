"""The loss functions of training, of float32 outputs: for classes, findings, grades and numbers."""

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


def build_findings_loss(
    kind: str = "binary_cross_entropy", *, focal_gamma: float = 2.0, label_smoothing: float = 0.0
) -> Loss:
    """Return the loss per example of several yes/no findings, of which some may be unknown.

    Args:
        kind: `binary_cross_entropy` or `focal`.
        focal_gamma: Exponent of the focal loss.
        label_smoothing: Share of each label that is moved to the other outcome and back, evenly.

    Returns:
        A function of targets [B, T] (1, 0 or nan for unknown) and logits [B, T] that returns float32 [B]: the
        sum over the known findings divided by T, so that every known cell counts the same.
    """
    gamma = focal_gamma if kind == "focal" else 0.0

    def loss(targets: Tensor, logits: Tensor) -> Tensor:
        targets, logits = ops.cast(targets, "float32"), ops.cast(logits, "float32")
        is_known = ops.logical_not(ops.isnan(targets))
        present = ops.where(is_known, targets, ops.zeros_like(targets))  # no nan may reach the gradient
        present = present * (1.0 - label_smoothing) + label_smoothing / 2
        terms = _binary_term(present, logits, gamma) + _binary_term(1.0 - present, -logits, gamma)
        return ops.sum(ops.where(is_known, terms, ops.zeros_like(terms)), axis=-1) / targets.shape[-1]

    return loss


def _binary_term(target: Tensor, logits: Tensor, gamma: float) -> Tensor:
    """Return -target * log p * (1 - p) ** gamma, with p = sigmoid(logits)."""
    term = -target * ops.log_sigmoid(logits)
    return term * ops.power(ops.maximum(ops.sigmoid(-logits), 1e-7), gamma) if gamma else term


def build_grades_loss(
    kind: str = "cumulative", *, classes: int, label_smoothing: float = 0.0, soft_labels: bool = False
) -> Loss:
    """Return the loss per example of ordered classes.

    Args:
        kind: `cumulative`, the sum over cuts of the cross-entropy of being above the cut; or `cross_entropy`
            of the classes, the likelihood of the proportional odds model.
        classes: Number of classes K.
        label_smoothing: As in `build_loss`.
        soft_labels: As in `build_loss`.

    Returns:
        A function of labels and log-probabilities [B, K] that returns float32 [B].

    Source:
        Cao, Mirjalili and Raschka (2020), Rank consistent ordinal regression for neural networks,
        doi:10.1016/j.patrec.2020.11.008.
    """
    if kind == "cross_entropy":
        return build_loss(classes=classes, label_smoothing=label_smoothing, soft_labels=soft_labels)

    def loss(labels: Tensor, log_p: Tensor) -> Tensor:
        targets = labels if soft_labels else ops.one_hot(ops.reshape(labels, (-1,)), classes)
        targets = smooth_labels(targets, label_smoothing)  # [B, K]
        log_p = ops.log_softmax(ops.cast(log_p, "float32"), axis=-1)
        total = 0.0
        for cut in range(1, classes):
            above = ops.sum(targets[:, cut:], axis=-1)
            total -= above * ops.logsumexp(log_p[:, cut:], axis=-1)
            total -= (1.0 - above) * ops.logsumexp(log_p[:, :cut], axis=-1)
        return total

    return loss


def build_number_loss(kind: str = "huber", *, scale: float) -> Loss:
    """Return the loss per example of a number, of the error in standard deviations of the target.

    Args:
        kind: `huber` (quadratic up to one standard deviation, linear beyond) or `squared`.
        scale: Standard deviation of the target over the training subjects.

    Returns:
        A function of targets [B, T] and predictions [B, T], both in the target's unit, that returns [B].

    Source:
        Huber (1964), Robust estimation of a location parameter, doi:10.1214/aoms/1177703732.
    """

    def loss(targets: Tensor, predictions: Tensor) -> Tensor:
        error = (ops.cast(predictions, "float32") - ops.cast(targets, "float32")) / scale
        if kind == "squared":
            return ops.mean(ops.square(error), axis=-1)
        size = ops.abs(error)
        near = ops.minimum(size, 1.0)
        return ops.mean(near * (size - 0.5 * near), axis=-1)

    return loss


def smooth_labels(targets: Tensor, smoothing: float) -> Tensor:
    """Return targets [B, K] with a share of their weight spread evenly over all classes.

    Args:
        targets: Rows [B, K] that sum to 1.
        smoothing: The share, from 0 to 1.

    Source:
        Szegedy et al. (2016), Rethinking the Inception Architecture, doi:10.1109/CVPR.2016.308.
    """
    targets = ops.cast(targets, "float32")
    return targets * (1.0 - smoothing) + smoothing / targets.shape[-1] if smoothing else targets


def focal_loss(targets: Tensor, logits: Tensor, *, gamma: float) -> Tensor:
    """Return the cross-entropy [B] with each class's term weighted by (1 - p) ** gamma.

    Args:
        targets: Rows [B, K] that sum to 1.
        logits: [B, K] of any float dtype; computed in float32.
        gamma: 0 or more. 0 is plain cross-entropy; the larger, the less well classified examples count.

    Source:
        Lin et al. (2017), Focal Loss for Dense Object Detection, doi:10.1109/ICCV.2017.324.
    """
    log_p = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    terms = targets * log_p
    if gamma:
        # 1 - p from log p without cancellation, and away from 0, where a power below 1 has no finite slope.
        terms = terms * ops.power(ops.maximum(-ops.expm1(log_p), 1e-7), gamma)
    return -ops.sum(terms, axis=-1)
