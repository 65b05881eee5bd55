"""Batch statistics measured anew, where a lift with trained weights made the copied ones stale."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable
from typing import Any

from voxlift.app.networks.pretrained import trained_source
from voxlift.app.settings import ModelSettings

log = logging.getLogger("voxlift")


BATCHES = 16  # enough volumes for steady statistics, few enough to cost seconds


def settle_statistics(network: Any, batches: Iterable[Any], model: ModelSettings) -> None:  # noqa: ANN401 - untyped Keras
    """Measure the batch statistics anew where a lift with trained weights made the copied ones stale.

    `centre` gives every slice the activations that the 2D network knew; averaged or turned kernels do not.
    """
    is_trained = model.pretrain or trained_source(model.baseline) is not None
    if model.kind != "volume" or not is_trained or model.init not in {"mean", "acs"}:
        return
    from voxlift.models.statistics import recalibrate_statistics

    count = recalibrate_statistics(network, (batch[0] for batch in itertools.islice(batches, BATCHES)))
    log.info("Batch statistics measured anew on %d batches", count)
