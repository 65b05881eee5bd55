"""`learning.json` of a run: whether the model learnt, written and read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from voxlift.app.config import TrainSettings
from voxlift.app.evaluation.learning import assess_learning, describe_learning
from voxlift.app.files import read_json, write_json
from voxlift.app.runs.configuration import describe_extensions
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.results import find_best_epoch, read_history


def write_learning(
    run: RunFolder, settings: TrainSettings, *, scores: Mapping[str, Any], cost: Mapping[str, Any]
) -> list[str]:
    """Write `learning.json` and return its sentences; none where no training or validation scores are known.

    Args:
        run: Its folder.
        settings: Of the run.
        scores: Of each split.
        cost: Of the fit, with the best epoch for a network.
    """
    if "train" not in scores or "val" not in scores:
        return []
    best = find_best_epoch(cost)
    found = assess_learning(
        scores["train"],
        scores["val"],
        best_epoch=best,
        epochs=None if best is None else len(read_history(run)),
        overfit_losses=_read_overfit_losses(run),
    )
    write_json(run.learning, found.as_json())
    return read_learning(run, settings)


def read_learning(run: RunFolder, settings: TrainSettings) -> list[str]:
    """Return sentences on whether the model learnt, and whether it was resumed for more epochs."""
    found = read_json(run.learning) if run.learning.exists() else {}
    augment = str(settings.augment.get("name", ""))
    return [
        *describe_learning(found, augment=augment, has_network=settings.model.has_network),
        *describe_extensions(run),
    ]


def _read_overfit_losses(run: RunFolder) -> list[float] | None:
    reports = read_json(run.preflight).get("trainings", []) if run.preflight.exists() else []
    losses = reports[-1].get("overfit_losses") if reports else None
    return [float(loss) for loss in losses] if losses else None
