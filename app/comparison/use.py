"""What the models of a comparison are worth in use, their prediction sets, and what predicts the site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from voxlift.app.comparison.trial import Trial
from voxlift.app.evaluation.clinical_use import evaluate_use
from voxlift.app.evaluation.conformal import measure_coverage, read_limits
from voxlift.app.evaluation.scores import Fits
from voxlift.app.files import read_json
from voxlift.app.inference.groups import PREDICTED_FROM
from voxlift.app.report.tables import TableCells, format_interval, format_value, table_cells


def summarise_use(
    by_model: Mapping[str, Sequence[Trial]],
    scores: Mapping[str, Fits],
    *,
    split: str,
    prevalence: float | None = None,
) -> dict[str, dict[str, Any]]:
    """Return `use`, `prediction_sets` and `sites` of each model, those of them that there are.

    Args:
        by_model: Trials of each model.
        scores: Its predictions, one per trial.
        split: Of the predictions.
        prevalence: As `evaluation.prevalence`.
    """
    found = {}
    for name, fits in scores.items():
        saved = [read_json(trial.run.metrics) for trial in by_model[name]]
        blocks = {
            "use": evaluate_use(fits, prevalence=prevalence),
            "prediction_sets": measure_sets(fits, saved, split),
            "sites": gather_sites(saved),
        }
        found[name] = {key: block for key, block in blocks.items() if block}
    return found


def measure_sets(fits: Fits, saved: Sequence[Mapping[str, Any]], split: str) -> dict[str, Any]:
    """Return how the prediction sets of a model's trainings do together; nothing where one has none.

    Args:
        fits: Predictions, one per training.
        saved: The metrics.json of each.
        split: Of the predictions.
    """
    blocks = [one.get("prediction_sets") for one in saved]
    if not all(blocks):
        return {}
    limits = [read_limits(block) for block in blocks if block]
    first = blocks[0] or {}
    always = {name for own in limits for name, limit in own.items() if limit == float("inf")}
    return {
        "coverage": first["coverage"],
        "subjects": first["subjects"],
        "trainings": len(blocks),
        "limits": {name: None if name in always else limit for name, limit in first["limits"].items()},
        split: measure_coverage(fits, limits),
    }


def gather_sites(saved: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return whether a model's trainings predict the site; nothing where one of them has not measured it.

    The AUC is the mean over trainings; there is an interval for a single one.

    Args:
        saved: The metrics.json of each.
    """
    blocks = [one.get("sites") for one in saved]
    if not all(blocks):
        return {}
    first = blocks[0] or {}
    found: dict[str, Any] = {
        "column": first["column"],
        "split": first["split"],
        "sites": sorted({site for block in blocks if block for site in block["sites"]}),
        "trainings": len(blocks),
    }
    for name in PREDICTED_FROM:
        own = [block[name] for block in blocks if block and block.get(name, {}).get("auc") is not None]
        if own:
            found[name] = {
                "auc": fmean(one["auc"] for one in own),
                "interval": own[0]["interval"] if len(own) == 1 else None,
                "told": sum(bool(one["can_be_told"]) for one in own),
                "trainings": len(own),
            }
    return found


def describe_model_sites(models: Mapping[str, Mapping[str, Any]]) -> tuple[str, TableCells]:
    """Return a sentence on which models predict the site, a warning where one does, and the table of all.

    Empty where no model has measured it.

    Args:
        models: Name to its block `sites`.
    """
    rows, predicting = [], []
    for name, block in models.items():
        for key, title in PREDICTED_FROM.items():
            if key not in block:
                continue
            one = block[key]
            rows.append(
                {
                    "model": name,
                    "told from": title,
                    "ROC AUC": format_value(one["auc"]),
                    "95 % interval": format_interval(*one["interval"]) if one["interval"] else "",
                    "told in": f"{one['told']} of {one['trainings']} trainings",
                }
            )
            # One training of several can predict it by chance.
            predicting += [f"{title} of {name}"] if one["told"] > one["trainings"] / 2 else []
    if not rows:
        return "", ([], [])
    first = next(block for block in models.values() if block)
    how = (
        f"{first['column']}, {first['split']} subjects of the same label; linear model, cross-validated; 0.5 "
        "is chance"
    )
    start = "No site could be told"
    if predicting:
        start = f"Warning: the site can be told from {'; '.join(predicting)}"
    return f"{start} ({how}).", table_cells(rows)
