"""What a training minimises: cross-entropy of float32 logits."""

from __future__ import annotations

from typing import Any

import keras


def build_loss(classes: int, *, label_smoothing: float, soft_labels: bool = False) -> Any:  # noqa: ANN401 - untyped Keras
    """Cross-entropy of logits and labels: class indices, or one-hot rows where mixup made them soft."""
    if label_smoothing == 0 and not soft_labels:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if soft_labels:
        return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=label_smoothing)

    def smoothed(labels: Any, logits: Any) -> Any:  # noqa: ANN401 - untyped Keras
        one_hot = keras.ops.one_hot(keras.ops.reshape(labels, (-1,)), classes)
        return keras.losses.categorical_crossentropy(
            one_hot, logits, from_logits=True, label_smoothing=label_smoothing
        )

    return smoothed
