"""What a comparison says: each model's metrics, what it costs, and the paired tests between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.evaluation.paired import Comparison, compare_models, model_intervals, point_metrics
from app.evaluation.scores import Scores, with_threshold
from app.progress import console
from app.runs import load_settings, read_json, read_rows, write_json, write_rows
from app.scoring import scores_from_rows

if TYPE_CHECKING:
    from app.compare import Trial

HEADLINE = ("auc", "balanced_accuracy", "accuracy")
COSTS = ("parameters", "flops", "seconds_per_epoch", "seconds_per_volume", "peak_memory_bytes")


def summarise_comparison(trials: Sequence[Trial], *, folder: Path) -> None:
    """Write `comparison.json`, `comparison.csv` and `report.html` into the folder, and print the table."""
    cells = {name: [test_scores(trial) for trial in of_model] for name, of_model in _by_model(trials).items()}
    pairs = compare_models(cells)
    rows = comparison_rows(trials, cells)
    write_rows(folder / "comparison.csv", rows)
    write_json(folder / "comparison.json", {"models": rows, "pairs": [_plain(pair) for pair in pairs]})
    show_comparison(rows, pairs)
    console.print(f"Results in {folder}", soft_wrap=True, highlight=False)


def test_scores(trial: Trial) -> Scores:
    """The test scores of one training, decided at the threshold that its validation chose."""
    classes = tuple(load_settings(trial.run).data.classes)
    scores = scores_from_rows(read_rows(trial.run.predictions), classes, split="test")
    threshold = read_json(trial.run.metrics)["threshold"]
    return scores if threshold is None else with_threshold(scores, threshold)


def comparison_rows(
    trials: Sequence[Trial], cells: Mapping[str, Sequence[Scores]]
) -> list[dict[str, str | float]]:
    """One row per model: test metrics with intervals, and the costs averaged over its trainings."""
    intervals = model_intervals(dict(cells))
    rows = []
    for name, of_model in _by_model(trials).items():
        points = point_metrics(cells[name])
        row: dict[str, str | float] = {"model": name, "trainings": len(of_model)}
        for metric in HEADLINE:
            low, high = intervals[name][metric]
            row |= {metric: points[metric], f"{metric}_low": low, f"{metric}_high": high}
        rows.append(row | mean_costs(of_model))
    return rows


def mean_costs(trials: Sequence[Trial]) -> dict[str, float]:
    """Each cost averaged over trainings."""
    costs = [read_json(trial.run.metrics)["cost"] for trial in trials]
    return {key: sum(cost[key] for cost in costs) / len(costs) for key in COSTS if all(key in c for c in costs)}


def _by_model(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    names = dict.fromkeys(trial.model for trial in trials)
    return {name: [trial for trial in trials if trial.model == name] for name in names}


def _plain(pair: Comparison) -> dict[str, Any]:
    """A comparison as JSON takes it."""
    return asdict(pair)
