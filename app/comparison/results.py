"""What a comparison says: each model's metrics, what it costs, and the paired tests between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from voxlift.app.comparison.comparable import Comparable
from voxlift.app.comparison.page import write_comparison_page
from voxlift.app.comparison.trial import Trial, trials_by_model
from voxlift.app.evaluation.paired import Comparison, compare_models, summarise_models
from voxlift.app.evaluation.scores import Scores
from voxlift.app.evaluation.verdict import overall_verdict
from voxlift.app.files import read_json, write_json, write_rows
from voxlift.app.progress import console, say
from voxlift.app.report.formatting import MISSING, format_quantity
from voxlift.app.report.terminal import print_comparisons, print_metrics
from voxlift.app.runs.predictions import read_scores

HEADLINE = ("auc", "balanced_accuracy", "accuracy")


COSTS = ("parameters", "flops", "seconds_per_epoch", "seconds_per_volume", "peak_memory_bytes")


def summarise_comparison(found: Comparable, *, folder: Path) -> None:
    """Write `comparison.json`, `comparison.csv` and `report.html` into the folder, and print the tables."""
    trials, by_model = found.trials, trials_by_model(found.trials)
    cells = {
        name: [read_scores(trial.run, split="test") for trial in of_model]
        for name, of_model in by_model.items()
    }
    seeds = [trial.seed for trial in next(iter(by_model.values()))]
    pairs = compare_models(cells, trainings=seeds)
    models = describe_models(trials, cells, seeds)
    found = replace(found, notes=(*found.notes, describe_validation(models)))
    write_rows(folder / "comparison.csv", [_flat(name, model) for name, model in models.items()])
    write_json(
        folder / "comparison.json",
        {
            "verdict": overall_verdict(pairs),
            "models": models,
            "pairs": [asdict(pair) for pair in pairs],
            "notes": list(found.notes),
        },
    )
    report = write_comparison_page(found, models, pairs, cells=cells, folder=folder)
    show_comparison(models, pairs)
    say(found.notes[-1])
    say(f"Results in {folder}, report {report}")


def describe_models(
    trials: Sequence[Trial], cells: Mapping[str, Sequence[Scores]], seeds: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Per model its test metrics with intervals over all its trainings, and its costs."""
    blocks = summarise_models(cells, trainings=seeds)
    return {
        name: {
            "test": blocks[name],
            "validation_auc": mean_validation_auc(of_model),
            "cost": mean_costs(of_model),
            "trainings": len(of_model),
        }
        for name, of_model in trials_by_model(trials).items()
    }


def mean_validation_auc(trials: Sequence[Trial]) -> float | None:
    """The AUC of the validation subjects, averaged over trainings; None where one has no such value."""
    values = [read_json(trial.run.metrics)["val"]["auc"] for trial in trials]
    if any(value is None or not math.isfinite(value) for value in values):
        return None
    return float(sum(values) / len(values))


def describe_validation(models: Mapping[str, Mapping[str, Any]]) -> str:
    """Which model the validation subjects prefer: whoever chooses one, chooses by these and not by the test.

    >>> describe_validation({"slice2d": {"validation_auc": 0.75}, "volume3d": {"validation_auc": 0.8125}})
    'Validation prefers volume3d (mean ROC AUC on validation subjects: volume3d 0.812, slice2d 0.750).'
    """
    known = {name: model["validation_auc"] for name, model in models.items()}
    if any(value is None for value in known.values()):
        return "Validation prefers no model: a training has no ROC AUC on its validation subjects."
    ranked = sorted(known, key=lambda name: -known[name])
    values = ", ".join(f"{name} {known[name]:.3f}" for name in ranked)
    return f"Validation prefers {ranked[0]} (mean ROC AUC on validation subjects: {values})."


def mean_costs(trials: Sequence[Trial]) -> dict[str, float]:
    """Each cost averaged over trainings."""
    costs = [read_json(trial.run.metrics)["cost"] for trial in trials]
    shared = [key for key in COSTS if all(key in cost for cost in costs)]
    return {key: sum(cost[key] for cost in costs) / len(costs) for key in shared}


def show_comparison(models: Mapping[str, Mapping[str, Any]], pairs: Sequence[Comparison]) -> None:
    """Print each model's metrics and costs, the paired differences, and the verdict in words."""
    print_metrics({name: model["test"] for name, model in models.items()}, metrics=HEADLINE)
    console.print(cost_table(models))
    print_comparisons(pairs)


def cost_table(models: Mapping[str, Mapping[str, Any]]) -> Table:
    """What each model costs, in units that a person reads."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("")
    for heading in ("parameters", "FLOPs per volume", "s per epoch", "ms per volume", "peak memory"):
        table.add_column(heading, justify="right")
    for name, model in models.items():
        cost = model["cost"]
        table.add_row(
            name,
            f"{cost['parameters']:,.0f}",
            format_quantity(cost.get("flops")),
            _fixed(cost.get("seconds_per_epoch"), digits=2),
            _fixed(cost.get("seconds_per_volume"), digits=1, scale=1000),
            f"{cost['peak_memory_bytes'] / 2**30:.2f} GiB",
        )
    return table


def _fixed(value: float | None, *, digits: int, scale: float = 1.0) -> str:
    """A number that a regression on the table does not have."""
    return MISSING if value is None else f"{scale * value:.{digits}f}"


def _flat(name: str, model: Mapping[str, Any]) -> dict[str, Any]:
    """A model's row in the table for a spreadsheet."""
    test = model["test"]
    row: dict[str, Any] = {"model": name, "trainings": model["trainings"]}
    row["validation_auc"] = model["validation_auc"]
    for metric in HEADLINE:
        low, high = test["intervals"][metric]
        row |= {metric: test[metric], f"{metric}_low": low, f"{metric}_high": high}
    return {**row, **model["cost"]}
