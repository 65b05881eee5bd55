"""Estimate the gradient noise scale from the gradients of a few batches.

Source:
    McCandlish et al. 2018, arXiv:1812.06162, appendix A.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NoiseScale:
    """The simple noise scale tr(S) / |G|^2, in examples, with its jackknife interval.

    Attributes:
        scale: Noise scale in examples; inf where the mean gradient does not differ from 0.
        low: Lower end of the 95 % interval.
        high: Upper end; inf where the data give no bound.
        variance: tr(S), the summed variance of one example's gradient.
        signal: |G|^2, the squared norm of the true gradient.
    """

    scale: float
    low: float
    high: float
    variance: float
    signal: float


def gradient_products(network: Any, batches: Iterator[Any], count: int) -> Floats:  # noqa: ANN401 - untyped Keras
    """Return the inner products [count, count] of the gradients of single batches, at the current weights.

    Args:
        network: Compiled Keras model.
        batches: Batches (inputs, labels, and sample weights if any), `count` or more.
        count: Number of batches.
    """
    stacked = np.stack([_gradient(network, next(batches)) for _ in range(count)])  # [count, weights] float32
    return np.asarray(stacked @ stacked.T, np.float64)


def _gradient(network: Any, batch: Any) -> NDArray[np.float32]:  # noqa: ANN401 - untyped Keras
    """Return the gradient of the training loss on one batch as one vector."""
    import tensorflow as tf

    weights = network.trainable_variables
    with tf.GradientTape() as tape:
        outputs = network(batch[0], training=True)
        loss = network.compute_loss(
            batch[0], batch[1], outputs, sample_weight=batch[2] if len(batch) > 2 else None
        )
    found = tape.gradient(loss, [weight.value for weight in weights])
    return np.concatenate([np.ravel(np.asarray(one, np.float32)) for one in found])


def estimate_noise_scale(gram: Floats, *, batch_size: int) -> NoiseScale:
    """Return the noise scale from the inner products of gradients of batches of one size.

    The mean of n batches' gradients is the gradient of one batch n times as large, so both norms come from
    the same gradients: the diagonal gives the small batch's, the sum of all entries the large one's. The
    interval leaves out one batch at a time, on the logarithm of the scale.

    Args:
        gram: Inner products [n, n] float64 of n >= 3 gradients.
        batch_size: Examples in each batch.

    Raises:
        ValueError: There are fewer than three batches.
    """
    n = len(gram)
    if gram.shape != (n, n) or n < 3:
        raise ValueError(f"expected a square of inner products of 3 batches or more, received {gram.shape}")
    variance, signal = _estimate(gram, batch_size)
    scale = _ratio(variance, signal)
    left_out = [_ratio(*_estimate(np.delete(np.delete(gram, i, 0), i, 1), batch_size)) for i in range(n)]
    low, high = _jackknife(scale, np.array(left_out))
    return NoiseScale(scale, low, high, variance, signal)


def two_point_estimate(
    small: float, large: float, *, small_batch: int, large_batch: int
) -> tuple[float, float]:
    """Return unbiased estimates (tr(S), |G|^2) from the mean squared gradient norms at two batch sizes.

    E|G_B|^2 = |G|^2 + tr(S) / B, solved for both unknowns.

    >>> two_point_estimate(1 + 8 / 2, 1 + 8 / 4, small_batch=2, large_batch=4)
    (8.0, 1.0)

    Args:
        small: Mean squared norm of the gradient of the small batch.
        large: The same of the large batch.
        small_batch: Examples in the small batch.
        large_batch: Examples in the large batch.
    """
    variance = (small - large) / (1 / small_batch - 1 / large_batch)
    signal = (large_batch * large - small_batch * small) / (large_batch - small_batch)
    return variance, signal


def _estimate(gram: Floats, batch_size: int) -> tuple[float, float]:
    n = len(gram)
    small, large = float(np.trace(gram)) / n, float(gram.sum()) / n**2
    return two_point_estimate(small, large, small_batch=batch_size, large_batch=n * batch_size)


def _ratio(variance: float, signal: float) -> float:
    return max(variance, 0.0) / signal if signal > 0 else math.inf


def _jackknife(scale: float, left_out: Floats) -> tuple[float, float]:
    """Return the ends of the 95 % interval from the scales that leave out one batch each."""
    if not (math.isfinite(scale) and scale > 0):
        return (0.0, math.inf)
    usable = left_out[np.isfinite(left_out) & (left_out > 0)]
    if len(usable) < len(left_out):
        return (float(usable.min()) if len(usable) else 0.0, math.inf)
    logs, n = np.log(usable), len(usable)
    error = math.sqrt((n - 1) / n * float(((logs - logs.mean()) ** 2).sum()))
    return scale * math.exp(-1.96 * error), scale * math.exp(1.96 * error)
