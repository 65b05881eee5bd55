"""Warnings of what keeps a network from learning, from a look at some prepared training volumes."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from voxlift.app.subjects.cohort import Cohort
from voxlift.data_pipelines.glance import remarks, span_of
from voxlift.data_pipelines.ranges import Sketch

log = logging.getLogger("voxlift")

LOOKED_AT = 24  # volumes, spread over the table: enough for a warning, read in no time


def warn_of_images(cohort: Cohort, sketches: Sequence[Sketch]) -> None:
    """Log what a person would see at a glance.

    Args:
        cohort: with at least one training volume.
        sketches: of the training records.
    """
    train = cohort.indices("train")
    chosen = train[np.unique(np.linspace(0, len(train) - 1, LOOKED_AT).astype(int))]
    spans = [span_of(np.fromfile(cohort.files[index], cohort.dtype)) for index in chosen]
    for sentence in remarks(spans, sketches, cohort.preprocess, cohort.shape):
        log.warning(sentence)
