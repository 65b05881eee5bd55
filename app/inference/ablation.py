"""Ablation of a network of images and columns: what it predicts with the image blanked, or with the table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.data.cohort import Cohort
from voxlift.app.inference.scores import build_split_scores, predict_outputs
from voxlift.data_pipelines.cache.format import PreparedVolumes

IMAGE_BLANKED, TABLE_BLANKED = "image_blanked", "table_blanked"


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
