"""Fit an L2-regularised linear model to many features of few volumes, by their Gram matrix.

An L2 penalty leaves the weights in the span of the N training volumes. The regression is therefore fitted on
N coordinates in that span, which give exactly the model of all features, at the cost of one Gram matrix.
Logistic regression rather than a support vector machine: its outputs are probabilities, also for several
classes, and the strength that validation selects also decides how confident they are.

Features are read in blocks. The memory is at most three times `BLOCK_BYTES`, a few Gram matrices of 8 N^2
bytes, and 24 + 8 K bytes for each feature.

Source:
    Hastie and Tibshirani (2004), Efficient quadratic regularization for expression arrays,
    doi:10.1093/biostatistics/kxh010.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from voxlift.app.data.cohort import Cohort
from voxlift.app.inference.scores import build_split_scores
from voxlift.app.runs.linear import LinearWeights
from voxlift.app.tasks.base import LinearOptions

log = logging.getLogger("voxlift")

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4)  # C, where the mean squared norm of a volume is 1
BLOCK_BYTES = 256 * 10**6  # of the features that are in memory at a time, as float64 of all N volumes
SMALLEST_SCALE = 1e-2  # of the root mean square: features that hardly vary are not enlarged beyond this
SMALLEST_EIGENVALUE = 1e-10  # of the largest: below it are rounding errors
MAX_ITERATIONS = 10_000

Matrix = NDArray[np.float64]


class Features(Protocol):
    """The features of all volumes of a cohort, in its order."""

    @property
    def count(self) -> int:
        """N, the number of volumes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the features of one volume."""

    def read(self, start: int, stop: int) -> Matrix:
        """Return the flat features `start` to `stop` of all volumes, [N, stop - start]."""


@dataclass(frozen=True, eq=False)
class LinearFit:
    """A fitted linear model.

    Attributes:
        weights: The model.
        logits: [N, K] of all volumes of the cohort.
    """

    weights: LinearWeights
    logits: Matrix


def fit_linear_head(features: Features, cohort: Cohort, *, balance: bool) -> LinearFit:
    """Fit to the training volumes, with the strength that is best on validation.

    Every feature is standardised by its mean and standard deviation over the training volumes.

    Args:
        features: Of all volumes of the cohort.
        cohort: With labels and splits.
        balance: Whether all classes have the same weight, however many volumes each has.
    """
    train, count = cohort.indices("train"), int(np.prod(features.shape))
    blocks = list(_split_blocks(count, volumes=features.count))
    mean, scale = _standardise(features, blocks, train)
    gram = np.zeros((features.count,) * 2)
    for block in blocks:
        scaled = _scale_block(features, block, mean, scale)
        gram += scaled @ scaled.T
    # The mean squared norm: C then means the same for any size.
    unit = float(np.mean(np.diag(gram)[train])) or 1.0
    gram /= unit
    dual, intercept, strength = _select_strength(gram, cohort, balance=balance)
    weights = np.empty((count, len(intercept)), np.float32)
    for block in blocks:
        weights[block] = _scale_block(features, block, mean, scale)[train].T @ dual / unit
    fitted = LinearWeights(
        weights=weights.reshape(*features.shape, -1),
        intercept=intercept,
        mean=mean.astype(np.float32).reshape(features.shape),
        scale=scale.astype(np.float32).reshape(features.shape),
        strength=strength,
    )
    return LinearFit(fitted, gram[:, train] @ dual + intercept)


def predict_linear(features: Features, weights: LinearWeights) -> Matrix:
    """Return the logits [N, K] of all volumes with a saved model."""
    mean, scale = (one.astype(np.float64).ravel() for one in (weights.mean, weights.scale))
    flat = weights.weights.reshape(len(mean), -1)
    logits: Matrix = weights.intercept
    for block in _split_blocks(len(mean), volumes=features.count):
        logits = logits + _scale_block(features, block, mean, scale) @ flat[block]
    return logits


def _split_blocks(count: int, *, volumes: int) -> Iterator[slice]:
    size = max(1, BLOCK_BYTES // (8 * volumes))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _standardise(features: Features, blocks: list[slice], train: NDArray[np.int64]) -> tuple[Matrix, Matrix]:
    """Return the mean and the standard deviation [F] of each feature over the training volumes."""
    mean, scale = np.empty(blocks[-1].stop), np.empty(blocks[-1].stop)
    for block in blocks:
        own = features.read(block.start, block.stop)[train]
        mean[block], scale[block] = own.mean(axis=0), own.std(axis=0)
    smallest = SMALLEST_SCALE * float(np.sqrt(np.mean(scale**2)))
    # Rounded as they are saved, so that a saved model gives the scores of the fitted one.
    mean = mean.astype(np.float32).astype(np.float64)
    return mean, np.maximum(scale, smallest or 1.0).astype(np.float32).astype(np.float64)


def _scale_block(features: Features, block: slice, mean: Matrix, scale: Matrix) -> Matrix:
    values = features.read(block.start, block.stop)
    values -= mean[block]
    values /= scale[block]
    return values


def _select_strength(gram: Matrix, cohort: Cohort, *, balance: bool) -> tuple[Matrix, Matrix, float]:
    """Return dual coefficients [train, K], intercept [K] and C of the best model on validation.

    The task's first monitor decides, such as the AUC; of equal ones the lower loss, then the stronger
    penalty.

    Args:
        gram: [N, N] of all volumes.
        cohort: With labels and splits.
        balance: See `fit_linear_head`.
    """
    train, held_out = cohort.indices("train"), cohort.indices("val")
    values, vectors = np.linalg.eigh(gram[np.ix_(train, train)])
    kept = values > SMALLEST_EIGENVALUE * values[-1]
    roots = np.sqrt(values[kept])
    vectors, best, rank = vectors[:, kept], None, (-np.inf, -np.inf)
    monitor = cohort.task.monitors[0]
    sign = -1.0 if monitor in cohort.task.lower_is_better else 1.0
    for strength in STRENGTHS:
        fit = LinearOptions(strength, balance, MAX_ITERATIONS)
        coefficients, intercept = cohort.task.fit_linear(vectors * roots, cohort.labels("train"), fit)
        dual = (vectors / roots) @ coefficients
        logits = gram[np.ix_(held_out, train)] @ dual + intercept
        scores = build_split_scores(cohort, "val", cohort.task.predict_linear(logits))
        metrics = cohort.task.validation_metrics(scores, cohort.head())
        log.info("C=%g: validation %s %.3f, loss %.3f", strength, monitor, metrics[monitor], metrics["loss"])
        own = (float(np.nan_to_num(sign * metrics[monitor], nan=-np.inf)), -metrics["loss"])
        if best is None or own > rank:
            best, rank = (dual, intercept, strength), own
    assert best is not None  # noqa: S101 - for the type checker: there are strengths to choose from
    log.info("Chosen on validation: C=%g", best[2])
    return best
