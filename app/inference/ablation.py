"""Ablation of a network of images and columns: what it predicts, and loses, with an input blanked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.data.cohort import Cohort
from voxlift.app.evaluation.bootstrap import summarise_models
from voxlift.app.evaluation.paired import compare_models
from voxlift.app.evaluation.scores import Predictions
from voxlift.app.inference.scores import build_split_scores, predict_outputs
from voxlift.data_pipelines.cache.format import PreparedVolumes

IMAGE_BLANKED, TABLE_BLANKED = "image_blanked", "table_blanked"
ALL_INPUTS = "all_inputs"


def score_ablations(
    network: Any,  # noqa: ANN401 - untyped Keras
    cohort: Cohort,
    split: str,
    *,
    batch_size: int,
) -> dict[str, Any]:
    """Return the scores of one split without one of the inputs.

    `image_blanked`: every image is the mean of the training images, voxel by voxel. `table_blanked`: every
    cell of the columns is missing, which the network takes as a gap: numbers are the training median, marked
    where training had gaps, and words are no known word, or that of a gap where training had some.

    Args:
        network: Of volumes and columns.
        cohort: With columns, training volumes and those of the split.
        split: `val` or `test`.
        batch_size: Volumes scored at once.

    Raises:
        DivergedError: Outputs are not finite.
    """
    if cohort.columns is None:
        raise ValueError("Expected a cohort with columns of the table.")
    volumes = cohort.prepared(split)
    gaps = cohort.columns.encoder.encode_gaps(len(volumes)).astype(np.float32)
    mean = mean_volume(cohort.prepared("train"))

    def predict_blank(network: Any, volumes: PreparedVolumes, *, batch_size: int) -> NDArray[np.float32]:  # noqa: ANN401 - untyped Keras
        from voxlift.data_pipelines.pipeline import evaluation_volumes

        batches = evaluation_volumes(volumes, batch_size=batch_size, image=mean)
        return np.asarray(network.predict(batches, verbose=0))

    outputs = {
        IMAGE_BLANKED: predict_outputs(network, volumes, batch_size=batch_size, predict=predict_blank),
        TABLE_BLANKED: predict_outputs(network, replace(volumes, columns=gaps), batch_size=batch_size),
    }
    return {
        name: build_split_scores(cohort, split, cohort.task.predict(values))
        for name, values in outputs.items()
    }


def mean_volume(volumes: PreparedVolumes) -> NDArray[np.floating]:
    """Return the mean of prepared volumes, voxel by voxel, [D, H, W, C], in float32 or their own type."""
    total = np.zeros(volumes.shape)
    for voxels in volumes.arrays():
        total += voxels
    is_float = np.issubdtype(np.dtype(volumes.dtype), np.floating)
    return (total / len(volumes)).astype(volumes.dtype if is_float else np.float32)


def summarise_ablation(
    fits: Mapping[str, Sequence[Predictions]], *, split: str, seeds: Sequence[int] | None = None
) -> dict[str, Any]:
    """Return the block `ablation` of metrics.json and of a model in comparison.json.

    For each set of inputs it holds the headline metrics with `intervals`; for those without one of the inputs
    also `difference`: of the primary metric from that of all inputs, by a paired bootstrap.

    Args:
        fits: `all_inputs` and the ablations, each with one value per fold and seed.
        split: That was scored.
        seeds: The training seed of each fit.

    Raises:
        ScoresError: The primary metric is undefined.
    """
    first = fits[ALL_INPUTS][0]
    blocks = summarise_models(fits, fit_seeds=seeds)
    pairs = compare_models(fits, fit_seeds=seeds, primary=first.primary, reference=ALL_INPUTS)
    inputs = {name: _keep_headline(block, first.headline) for name, block in blocks.items()}
    for pair in pairs:
        found = pair.differences[first.primary]
        values = {"difference": found.difference, "low": found.low, "high": found.high}
        inputs[pair.second]["difference"] = {
            name: value if math.isfinite(value) else None for name, value in values.items()
        }
    return {"split": split, "metric": first.primary, "inputs": inputs}


def _keep_headline(block: Mapping[str, Any], headline: Sequence[str]) -> dict[str, Any]:
    kept: dict[str, Any] = {name: block[name] for name in headline}
    return kept | {"intervals": {name: block["intervals"][name] for name in headline}}
