"""Write and print the results of a comparison: metrics and costs per model, and paired tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from voxlift.app.comparison.added import AddedInput, added_as_json, find_added, summarise_ablations
from voxlift.app.comparison.page import write_comparison_page
from voxlift.app.comparison.selection import SelectedTrials, find_primary
from voxlift.app.comparison.trial import RESULTS, Trial, group_by_model, mean_costs
from voxlift.app.comparison.use import describe_model_sites, summarise_use
from voxlift.app.config import EvaluationSettings, PageSettings
from voxlift.app.evaluation.bootstrap import summarise_models
from voxlift.app.evaluation.metric_names import LOWER_IS_BETTER, metric_in_text
from voxlift.app.evaluation.paired import Comparison, compare_models
from voxlift.app.evaluation.scores import Predictions, ScoresError
from voxlift.app.evaluation.verdict import (
    decide,
    describe_chance,
    has_too_few_subjects,
    overall_verdict,
)
from voxlift.app.files import read_json, write_json, write_rows
from voxlift.app.inference.groups import evaluate_model_subgroups
from voxlift.app.progress import console, phase, print_line
from voxlift.app.report.evidence import compare_use, describe_run_subjects
from voxlift.app.report.tables import MISSING, TableCells, format_quantity
from voxlift.app.report.terminal import (
    print_ablation,
    print_comparisons,
    print_metrics,
    print_model_subgroups,
)
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.results import read_scores

VALIDATION_RESAMPLES = 500
COSTS = ("parameters", "flops", "seconds_per_epoch", "seconds_per_volume", "peak_memory_bytes")


@dataclass(frozen=True, eq=False)
class ComparisonResults:
    """What a comparison found.

    Attributes:
        models: Model name to its entry of `comparison.json`: metrics, costs, ablation, use and sites.
        pairs: Paired comparisons.
        added: What images and columns of the table add to each other.
        ablation: Name of each model of both to its block `ablation`.
        subgroups: Model name to its subgroups; empty without `evaluation.by`.
        chance: Sentence where no model is shown to be better than chance; else empty.
        ranking: Sentence on the scores of validation.
        sites: Sentence on the models that predict the site, and a table; empty where none has measured it.
        notes: Of the selected trials, then the sentences above.
    """

    models: Mapping[str, Mapping[str, Any]]
    pairs: Sequence[Comparison]
    added: Sequence[AddedInput]
    ablation: Mapping[str, Mapping[str, Any]]
    subgroups: Mapping[str, Any]
    chance: str
    ranking: str
    sites: tuple[str, TableCells]
    notes: tuple[str, ...]

    @property
    def tested(self) -> dict[str, Mapping[str, Any]]:
        """Model name to its metrics on the test subjects."""
        return {name: model["test"] for name, model in self.models.items()}

    def as_json(self, trials: Sequence[Trial]) -> dict[str, Any]:
        """Return the content of `comparison.json`.

        Args:
            trials: The trainings that were compared.
        """
        return {
            "verdict": " ".join(filter(None, [self.chance, overall_verdict(self.pairs)])),
            "models": self.models,
            "pairs": [asdict(pair) | asdict(decide(pair)) for pair in self.pairs],
            **({"added": added_as_json(self.added)} if self.added else {}),
            "trainings": [describe_training(trial) for trial in trials],
            "notes": list(self.notes),
            **({"subgroups": self.subgroups} if self.subgroups else {}),
        }


def write_comparison(
    selected: SelectedTrials,
    *,
    folder: Path,
    margin: float | None = None,
    evaluation: EvaluationSettings | None = None,
    page: PageSettings | None = None,
) -> None:
    """Write `comparison.json`, `comparison.csv` and `report.html` into the folder, and print the tables.

    Args:
        selected: Compared trials, with notes.
        folder: Folder of the comparison.
        margin: Smallest difference of the primary metric that matters; None: see `compare_models`.
        evaluation: With the groups that are scored apart; None: none.
        page: The cases on the page; None: as by default.
    """
    scores = {
        name: [read_scores(trial.run, split="test", evaluation=evaluation) for trial in of_model]
        for name, of_model in group_by_model(selected.trials).items()
    }
    first, evaluation = next(iter(scores.values()))[0], evaluation or EvaluationSettings()
    found = compare_trials(selected, scores, margin=margin, evaluation=evaluation)
    rows = [_build_row(name, model, first) for name, model in found.models.items()]
    write_rows(folder / "comparison.csv", rows)
    write_json(folder / RESULTS, found.as_json(selected.trials))
    run = selected.trials[0].run
    settings = replace(load_settings(run), evaluation=evaluation, report=page or PageSettings())
    positive = first.outputs[-1] if first.outputs else ""
    evidence = describe_run_subjects(
        run,
        settings,
        subgroups=found.subgroups,
        is_by_model=True,
        ablation=found.ablation,
        use=compare_use(found.models, "test", positive=positive),
    )
    with phase("Writing the page"):
        report = write_comparison_page(
            replace(selected, notes=found.notes),
            found.models,
            found.pairs,
            scores=scores,
            folder=folder,
            evidence=replace(evidence, sites=found.sites),
            settings=settings,
        )
    print_results(found, first)
    print_line(f"Results in {folder}, report {report}")


def compare_trials(
    selected: SelectedTrials,
    scores: Mapping[str, Sequence[Predictions]],
    *,
    margin: float | None,
    evaluation: EvaluationSettings,
) -> ComparisonResults:
    """Return the results of a comparison.

    Args:
        selected: Compared trials, with notes.
        scores: Test scores of each model, one per trial.
        margin: As in `write_comparison`.
        evaluation: With the groups that are scored apart.
    """
    by_model = group_by_model(selected.trials)
    seeds = [trial.seed for trial in next(iter(by_model.values()))]
    primary = next(iter(scores.values()))[0].primary
    with phase("Comparing the models"):
        pairs = compare_models(scores, fit_seeds=seeds, primary=primary, margin=margin)
        models = summarise_trials(selected.trials, scores, seeds)
    settings_of = {name: load_settings(of_model[0].run).model for name, of_model in by_model.items()}
    added, ablation = find_added(pairs, settings_of), summarise_ablations(by_model, scores, seeds)
    ranking = describe_validation(models, primary, noise=find_validation_noise(by_model, models))
    chance = describe_chance({name: model["test"] for name, model in models.items()}, primary)
    subgroups = evaluate_model_subgroups(selected.trials[0].run, scores, evaluation)
    used = summarise_use(by_model, scores, split="test", prevalence=evaluation.prevalence)
    sites = describe_model_sites({name: one.get("sites", {}) for name, one in used.items()})
    blanked = {name: {"ablation": block} for name, block in ablation.items()}
    return ComparisonResults(
        models={name: {**model, **blanked.get(name, {}), **used[name]} for name, model in models.items()},
        pairs=pairs,
        added=added,
        ablation=ablation,
        subgroups=subgroups,
        chance=chance,
        ranking=ranking,
        sites=sites,
        notes=(*selected.notes, *(one.sentence for one in added), ranking, *filter(None, sites[:1])),
    )


def print_results(found: ComparisonResults, first: Predictions) -> None:
    """Print the tables and sentences of a comparison.

    Args:
        found: The results.
        first: Predictions of one model, for the metrics that are printed and their unit.
    """
    if found.chance:
        print_line(found.chance)
    print_metrics(found.tested, metrics=first.headline, unit=first.unit)
    console.print(build_cost_table(found.models))
    print_comparisons(found.pairs)
    print_model_subgroups(found.subgroups)
    if found.sites[0]:
        print_line(found.sites[0])
    for name, block in found.ablation.items():
        print_ablation(block, name=name)
    for line in (*(one.sentence for one in found.added), found.ranking):
        print_line(line)


def describe_training(trial: Trial) -> dict[str, Any]:
    """Return which training was compared under which name, fold and seed, and its run folder."""
    run = str(trial.run.path)
    return {"model": trial.model, "fold": trial.fold, "seed": trial.seed, "run": run}


def summarise_trials(
    trials: Sequence[Trial], scores: Mapping[str, Sequence[Predictions]], seeds: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Return per model its test metrics with intervals over all its trainings, and its mean costs.

    Args:
        trials: Trials of all models.
        scores: Test scores of each model, one per trial.
        seeds: Seed of each of a model's trials.
    """
    blocks = summarise_models(scores, fit_seeds=seeds)
    primary = next(iter(scores.values()))[0].primary
    return {
        name: {
            "test": blocks[name],
            f"validation_{primary}": mean_validation(of_model, primary),
            "cost": mean_costs(of_model, COSTS),
            "trainings": len(of_model),
        }
        for name, of_model in group_by_model(trials).items()
    }


def mean_validation(trials: Sequence[Trial], metric: str) -> float | None:
    """Return a metric on validation averaged over trials; None where it is undefined for one."""
    values = [read_json(trial.run.metrics)["val"][metric] for trial in trials]
    if any(value is None or not math.isfinite(value) for value in values):
        return None
    return float(sum(values) / len(values))


def find_validation_noise(
    by_model: Mapping[str, Sequence[Trial]], models: Mapping[str, Mapping[str, Any]]
) -> float | None:
    """Return half the width of the 95 % interval of the difference of the two best models on validation.

    It is the mean over trainings of the paired interval, which is not narrowed by their number: validation
    subjects of folds and seeds are in part the same. None where a metric is undefined; infinite where there
    are too few subjects.

    Args:
        by_model: Trials of each model, in the same order of folds and seeds.
        models: As `summarise_trials` gives them.
    """
    primary = find_primary(next(iter(by_model.values()))[0])
    found = {name: model[f"validation_{primary}"] for name, model in models.items()}
    if any(value is None for value in found.values()):
        return None
    sign = 1 if primary in LOWER_IS_BETTER else -1
    best = sorted(found, key=lambda name: sign * found[name])[:2]
    widths = []
    for pair in zip(*(by_model[name] for name in best), strict=True):
        scores = {name: read_scores(one.run, split="val") for name, one in zip(best, pair, strict=True)}
        try:
            (compared,) = compare_models(scores, primary=primary, resamples=VALIDATION_RESAMPLES)
        except ScoresError:
            return None
        if has_too_few_subjects(compared):
            return math.inf
        difference = compared.differences[primary]
        widths.append((difference.high - difference.low) / 2)
    return sum(widths) / len(widths)


def describe_validation(
    models: Mapping[str, Mapping[str, Any]], primary: str = "auc", *, noise: float | None = None
) -> str:
    """Return a sentence that ranks the models on validation, on which a model should be selected.

    None is preferred where the two best differ by less than the noise of their difference.

    >>> describe_validation({"slice2d": {"validation_auc": 0.75}, "volume3d": {"validation_auc": 0.8125}})
    'Validation prefers volume3d (mean ROC AUC on validation subjects: volume3d 0.812, slice2d 0.750).'
    """
    found = {name: model[f"validation_{primary}"] for name, model in models.items()}
    label = metric_in_text(primary)
    if any(value is None for value in found.values()):
        return f"Validation prefers no model: the {label} on validation subjects of a training is undefined."
    sign = 1 if primary in LOWER_IS_BETTER else -1
    ranked = sorted(found, key=lambda name: sign * found[name])
    values = ", ".join(f"{name} {found[name]:.3f}" for name in ranked)
    if noise is not None and not abs(found[ranked[0]] - found[ranked[1]]) > noise:
        why = f"the two best differ by less than noise, {noise:.3f} either way"
        why = why if math.isfinite(noise) else "there are too few validation subjects"
        return f"Validation prefers none: {why} (mean {label} on validation subjects: {values})."
    return f"Validation prefers {ranked[0]} (mean {label} on validation subjects: {values})."


def build_cost_table(models: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a table of each model's costs for the terminal."""
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
            _format_fixed(cost.get("seconds_per_epoch"), digits=2),
            _format_fixed(cost.get("seconds_per_volume"), digits=1, scale=1000),
            f"{cost['peak_memory_bytes'] / 1e9:.2f} GB",
        )
    return table


def _format_fixed(value: float | None, *, digits: int, scale: float = 1.0) -> str:
    """Return a number with fixed digits; a dash for None, a cost that a regression on the table has not."""
    return MISSING if value is None else f"{scale * value:.{digits}f}"


def _build_row(name: str, model: Mapping[str, Any], scores: Predictions) -> dict[str, Any]:
    """Return a model's row of `comparison.csv`."""
    test, validation = model["test"], f"validation_{scores.primary}"
    row: dict[str, Any] = {"model": name, "trainings": model["trainings"], validation: model[validation]}
    for metric in scores.headline:
        low, high = test["intervals"][metric]
        row |= {metric: test[metric], f"{metric}_low": low, f"{metric}_high": high}
    return {**row, **model["cost"]}
