"""The last layers of networks that predict a number, or ordered classes."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from voxlift.models.backend import Tensor
from voxlift.models.layers.convolution import Setting

SMALLEST_GAP = 1e-3  # between cuts, in logits


@keras.saving.register_keras_serializable(package="voxlift")
class TargetScale(keras.layers.Rescaling):
    """A number in its own unit, from one with about mean 0 and deviation 1: `scale * x + offset`, in float32.

    Args:
        scale: Standard deviation of the number over the training subjects.
        offset: Its mean.
        kwargs: Arguments of every Keras layer.
    """

    def __init__(self, scale: float, offset: float = 0.0, **kwargs: Setting) -> None:
        super().__init__(scale, offset, **{"dtype": "float32", **kwargs})


@keras.saving.register_keras_serializable(package="voxlift")
class CumulativeLogits(keras.layers.Layer):
    """Log-probabilities [B, K] of ordered classes from one value [B, 1]: the proportional odds model.

    The log odds of a class above cut k are the value minus cut k. The first cut and the gaps between cuts are
    weights; a gap is always positive, so that every probability is.

    Args:
        cuts: K - 1 rising cuts to start from, in logits.
        kwargs: Arguments of every Keras layer.

    Source:
        McCullagh (1980), Regression models for ordinal data, doi:10.1111/j.2517-6161.1980.tb01109.x.
    """

    def __init__(self, cuts: Sequence[float], **kwargs: Setting) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.cuts = [float(cut) for cut in cuts]
        if not self.cuts or any(not gap > 0 for gap in np.diff(self.cuts)):
            raise ValueError(f"Expected one rising cut or more, received {self.cuts}.")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights: the first cut, and the gaps before their softplus."""
        if input_shape[-1] != 1:
            raise ValueError(f"Expected values [B, 1], received {tuple(input_shape)}.")
        gaps = np.maximum(np.diff(self.cuts) - SMALLEST_GAP, SMALLEST_GAP)
        start = keras.initializers.Constant
        self.first = self.add_weight(shape=(1,), initializer=start(self.cuts[0]), name="first_cut")
        self.gaps = None
        if len(gaps):
            before_softplus = np.log(np.expm1(gaps)).astype(np.float32)
            self.gaps = self.add_weight(shape=gaps.shape, initializer=start(before_softplus), name="gaps")

    def call(self, values: Tensor) -> Tensor:
        """Return log-probabilities, float32 [B, K].

        Args:
            values: [B, 1]; a larger value is a higher class.
        """
        values = ops.cast(values, "float32")
        if self.gaps is None:
            odds = values - self.first
            return ops.concatenate([ops.log_sigmoid(-odds), ops.log_sigmoid(odds)], axis=-1)
        gaps = ops.softplus(self.gaps) + SMALLEST_GAP  # [K - 2]
        odds = values - ops.cumsum(ops.concatenate([self.first, gaps]))  # [B, K - 1], log odds above cuts
        above, below = ops.log_sigmoid(odds), ops.log_sigmoid(-odds)
        # s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)), without cancellation.
        between = above[:, :-1] + below[:, 1:] + ops.log1p(-ops.exp(-gaps))
        return ops.concatenate([below[:, :1], between, above[:, -1:]], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return [B, K]."""
        return (*input_shape[:-1], len(self.cuts) + 1)

    def get_config(self) -> dict[str, Any]:
        """Return the settings."""
        return {**super().get_config(), "cuts": self.cuts}


OUTPUT_LAYERS = (TargetScale, CumulativeLogits)  # they follow the dense layer of a head
