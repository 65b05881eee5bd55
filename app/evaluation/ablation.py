"""What a model of images and columns loses where one of them is blanked, with intervals over subjects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from voxlift.app.evaluation.bootstrap import summarise_models
from voxlift.app.evaluation.paired import compare_models
from voxlift.app.evaluation.scores import Predictions

ALL_INPUTS = "all_inputs"


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
