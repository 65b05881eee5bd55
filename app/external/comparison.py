"""Evaluate all models of a finished comparison on external data, and repeat its paired verdict there."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from voxlift.app.comparison.page import rank_disagreements, read_calibrations
from voxlift.app.comparison.trial import RESULTS, Trial, describe_resumed, find_compared_run, group_by_model
from voxlift.app.comparison.use import summarise_use
from voxlift.app.config import DataSettings, EvaluateSettings, PageSettings, SettingsError
from voxlift.app.data.cohort import Cohort
from voxlift.app.evaluation.bootstrap import summarise_models
from voxlift.app.evaluation.external import unpaired_differences
from voxlift.app.evaluation.paired import Comparison, compare_models
from voxlift.app.evaluation.scores import Fits, align_scores
from voxlift.app.evaluation.verdict import decide, overall_verdict
from voxlift.app.external.data import (
    EXTERNAL,
    TrainedVolumes,
    build_external_settings,
    find_trained_volumes,
    load_external,
    prepare_external,
    refuse_trained_voxels,
)
from voxlift.app.external.run import (
    describe_comparison,
    evaluate_runs,
    gather_external,
    write_external_setup,
)
from voxlift.app.external.score import find_unusual, read_test_scores, score_run
from voxlift.app.files import read_json, read_rows, write_json, write_rows
from voxlift.app.inference.ensemble import EnsembleMember, open_ensemble
from voxlift.app.inference.groups import evaluate_subgroups, find_case_groups, find_case_names
from voxlift.app.progress import phase, print_line
from voxlift.app.report.cases import Case, build_cases
from voxlift.app.report.comparison_page import ComparisonSummary, render_comparison_page
from voxlift.app.report.evidence import Evidence, compare_use, show_subgroups, table_one_cells
from voxlift.app.report.external_page import count_reasons, describe_models_external
from voxlift.app.report.pages import assign_colours, timestamp
from voxlift.app.report.run_facts import describe_range
from voxlift.app.report.run_page import add_groups, count_splits, describe_task
from voxlift.app.report.tables import TableCells, show_config, show_path, table_cells
from voxlift.app.report.terminal import print_comparisons, print_metrics, print_model_subgroups
from voxlift.app.runs.cohort import join_new_columns
from voxlift.app.runs.configuration import TRIALS, load_settings
from voxlift.app.runs.folder import RunFolder, load_network
from voxlift.app.runs.results import prediction_rows
from voxlift.app.runs.subjects import SubjectColumns, check_reported_columns, describe_with_external
from voxlift.app.runtime.failures import build_scoring_hint, translate_failures
from voxlift.app.tasks.base import task_of
from voxlift.app.training.without_network import check_model
from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.tables.manifest import Manifest

log = logging.getLogger("voxlift")


@dataclass(frozen=True, eq=False)
class ScoredTrials:
    """The trials of a comparison on external data.

    Attributes:
        trials: Those that could be scored, with the models' names in the comparison.
        members: The opened run of each.
        scores: Model name to the scores of its trials, each at its own threshold.
        cohort: The external volumes, as the first trial prepares them.
        notes: Sentences on models that are left out.
    """

    trials: tuple[Trial, ...]
    members: tuple[EnsembleMember, ...]
    scores: Mapping[str, Fits]
    cohort: Cohort
    notes: tuple[str, ...]

    @property
    def seeds(self) -> list[int]:
        """The seed of each of a model's trials."""
        return [trial.seed for trial in next(iter(group_by_model(self.trials).values()))]


def is_comparison(path: Path) -> bool:
    """Return whether a folder is that of a finished comparison."""
    return (path / RESULTS).is_file() and (path / TRIALS).is_file()


def evaluate_comparison(asked: EvaluateSettings, comparison: Path) -> int:
    """Score external data with all models of a comparison; write and print their paired verdict.

    Args:
        asked: `data`, `output`, `evaluation` and `batch_size`.
        comparison: Its folder.

    Returns:
        The exit status, 0.

    Raises:
        SettingsError, ManifestError, VolumeError: As in `evaluate_runs`.
    """
    trials, notes = read_trials(comparison)
    trials, without_input = select_trials_with_input(trials, asked)
    notes = [*notes, *without_input]
    for note in notes:
        log.warning("%s", note)
    if len({trial.model for trial in trials}) == 1:  # nothing is left to compare it with
        return evaluate_runs(asked, [str(trial.run.path) for trial in trials])
    ensembles = [open_ensemble([str(trial.run.path)], allow_table=True) for trial in trials]
    members = tuple(one.members[0] for one in ensembles)
    own = replace(members[0].settings, evaluation=asked.evaluation)
    settings = build_external_settings(own, asked.data)
    check_reported_columns(settings)
    trained = find_trained_volumes([trial.run for trial in trials])
    manifest, cohort = gather_external(settings, ensembles[0].classes, trained)
    hint = build_scoring_hint(asked.batch_size or own.trainer.batch_size)
    with phase("Scoring the external data"), translate_failures(hint):
        scored = replace(_score_trials(asked, trials, members, cohort, trained), notes=tuple(notes))
    folder = RunFolder(Path(str(asked.output)).expanduser())
    columns = write_external_setup(folder, settings, cohort=cohort, manifest=manifest)
    results, pairs = compare_external(scored, asked, columns, comparison)
    results["compared"] = describe_comparison(trained, asked)
    write_rows(folder.predictions, _prediction_rows(scored))
    table = describe_with_external([trials[0].run], own, columns, cohort, named=asked.evaluation.describe)
    with phase("Writing the page"):
        _write_page(
            folder,
            scored,
            results,
            pairs,
            comparison=comparison,
            table=table_one_cells(table),
            page=asked.report,
        )
    write_json(folder.path / RESULTS, results)
    print_metrics({name: model[EXTERNAL] for name, model in results["models"].items()})
    print_comparisons(pairs)
    print_model_subgroups(results.get("subgroups", {}))
    print_line(describe_range(results["training_range"]))
    for sentence in describe_resumed(scored.trials):
        print_line(sentence)
    print_line(f"Results in {folder.path}, report {folder.report}")
    return 0


def read_trials(comparison: Path) -> tuple[list[Trial], list[str]]:
    """Return the trainings that a comparison compared and that can score new images, and sentences on others.

    A comparison of an earlier version names only its models; its trainings are then found by these names.

    Raises:
        SettingsError: None of them can score new images.
    """
    saved = read_json(comparison / RESULTS)
    rows = saved.get("trainings") or [
        row
        for row in read_rows(comparison / TRIALS)
        if row["model"] in saved["models"] and row["status"] == "0"
    ]
    trials, notes = [], []
    for row in rows:
        run = find_compared_run(comparison, str(row["run"]))
        if not run.network.exists() and not (run.coefficients.exists() and run.columns.exists()):
            notes.append(
                f"{row['model']} is left out: {run.path.name} holds no model that scores new subjects."
            )
            continue
        trials.append(Trial(str(row["model"]), int(row["fold"]), int(row["seed"]), (), run))
    absent = [name for name in saved["models"] if name not in {str(row["model"]) for row in rows}]
    notes += [f"{name} is left out: it is not known which trainings were compared as it." for name in absent]
    if not trials:
        raise SettingsError(f"run={comparison}: none of its models can score new images. {' '.join(notes)}")
    return trials, list(dict.fromkeys(notes))


def select_trials_with_input(
    trials: Sequence[Trial], asked: EvaluateSettings
) -> tuple[list[Trial], list[str]]:
    """Return the trials whose model finds its columns or vectors in the new data, and sentences on others.

    Raises:
        ManifestError: The table cannot be used.
        SettingsError: No model finds them.
    """
    usable, notes = [], []
    for name, own in group_by_model(trials).items():
        saved = load_settings(own[0].run)
        settings = build_external_settings(saved, asked.data)
        manifest = load_external(settings, task_of(saved).names(saved.data))
        try:
            check_model(settings, manifest)
            usable += own
        except (ManifestError, SettingsError) as error:
            notes.append(f"{name} is left out: {error}")
    if not usable:
        raise SettingsError(f"data.table={asked.data.table}: no model can be scored. {' '.join(notes)}")
    return [trial for trial in trials if trial in usable], notes


def compare_external(
    scored: ScoredTrials, asked: EvaluateSettings, columns: SubjectColumns, comparison: Path
) -> tuple[dict[str, Any], tuple[Comparison, ...]]:
    """Return the content of `comparison.json` on external data, and its pairs.

    Args:
        scored: The trials.
        asked: With `evaluation`.
        columns: Of the external subjects.
        comparison: Its folder, with the internal verdict.
    """
    saved = read_json(comparison / RESULTS)
    margin = next((float(pair["margin"]) for pair in saved["pairs"] if "margin" in pair), None)
    primary = next(iter(scored.scores.values()))[0].primary
    compared = compare_models(scored.scores, fit_seeds=scored.seeds, primary=primary, margin=margin)
    pairs = tuple(replace(pair, is_external=True) for pair in compared)
    blocks = summarise_models(scored.scores, fit_seeds=scored.seeds)
    by_model = group_by_model(scored.trials)
    used = summarise_use(by_model, scored.scores, split=EXTERNAL, prevalence=asked.evaluation.prevalence)
    warnings = find_unusual(scored.cohort, scored.members)
    results: dict[str, Any] = {
        "comparison": str(comparison),
        "verdict": overall_verdict(pairs),
        "internal_verdict": saved["verdict"],
        "models": {
            name: {
                EXTERNAL: blocks[name],
                "internal": saved["models"][name]["test"],
                "difference": _difference(by_model[name], scored.scores[name]),
                **{key: used[name][key] for key in ("use", "prediction_sets") if key in used[name]},
            }
            for name in scored.scores
        },
        "pairs": [asdict(pair) | asdict(decide(pair)) for pair in pairs],
        "training_range": {
            "volumes": len(warnings),
            "outside": sum(map(bool, warnings)),
            "reasons": count_reasons(warnings),
        },
        "notes": list(scored.notes),
    }
    if asked.evaluation.by:
        results["subgroups"] = {
            name: evaluate_subgroups(fits, columns, asked.evaluation) for name, fits in scored.scores.items()
        }
    return results, pairs


def _score_trials(
    asked: EvaluateSettings,
    trials: Sequence[Trial],
    members: Sequence[EnsembleMember],
    cohort: Cohort,
    trained: TrainedVolumes,
) -> ScoredTrials:
    """Return the scores of each trial; models with another preprocessing have the images prepared anew."""
    cohorts = {repr(members[0].preprocess): cohort}
    scores: dict[str, list[Any]] = {}
    for trial, member in zip(trials, members, strict=True):
        settings = build_external_settings(member.settings, asked.data)
        key = repr(member.preprocess)
        if key not in cohorts:
            manifest = Manifest(cohort.records, cohort.classes, {}, Path(str(settings.data.table)))
            cohorts[key] = prepare_external(manifest, settings)
            refuse_trained_voxels(cohorts[key], trained, manifest.source)
        batch_size = asked.batch_size or member.settings.trainer.batch_size
        own = score_run(
            trial.run, settings, cohorts[key], EXTERNAL, batch_size=batch_size, engine=asked.engine
        )
        decided = cohort.task.decide(own, read_json(trial.run.metrics))
        scores.setdefault(trial.model, []).append(decided)
    return ScoredTrials(tuple(trials), tuple(members), scores, cohort, ())


def _difference(trials: Sequence[Trial], external: Fits) -> dict[str, Any]:
    """Return the differences from the internal test; empty where a run has no test subjects."""
    internal = [read_test_scores(trial.run) for trial in trials]
    known = [one for one in internal if one is not None]
    return unpaired_differences(known, external) if len(known) == len(internal) else {}


def _prediction_rows(scored: ScoredTrials) -> list[dict[str, Any]]:
    rows = []
    counts = dict.fromkeys(scored.scores, 0)
    for trial in scored.trials:
        own = scored.scores[trial.model][counts[trial.model]]
        counts[trial.model] += 1
        key = {"model": trial.model, "fold": trial.fold, "seed": trial.seed}
        rows += [key | row for row in prediction_rows({EXTERNAL: own}, scored.cohort.task)]
    return rows


def _write_page(
    folder: RunFolder,
    scored: ScoredTrials,
    results: Mapping[str, Any],
    pairs: Sequence[Comparison],
    *,
    comparison: Path,
    table: TableCells,
    page: PageSettings,
) -> None:
    """Write `report.html` of a comparison on external data."""
    by_model = group_by_model(scored.trials)
    first = next(iter(scored.scores.values()))[0]
    own = load_settings(folder)
    case_groups, names = find_case_groups(folder, own, first), find_case_names(folder, own)
    # Also where a model of the comparison is left out here, the others keep their colours.
    colours = assign_colours(read_json(comparison / RESULTS)["models"])
    groups, forest = show_subgroups(results.get("subgroups", {}), colours=colours)
    summary = ComparisonSummary(
        name=f"{' against '.join(scored.scores)} on external data {describe_task(own.data)}",
        comparisons=pairs,
        models=scored.scores,
        metrics={name: model[EXTERNAL] for name, model in results["models"].items()},
        splits=count_splits(folder, scored.cohort.task, scored.cohort.classes),
        environment=read_json(scored.trials[0].run.environment),
        calibrations=read_calibrations(by_model),
        cases=[
            {name: add_groups(case, case_groups, names) for name, case in volume.items()}
            for volume in _pick_disagreements(scored, own.data, page.cases)
        ],
        is_interactive=page.interactive,
        configs={"": show_config(folder.config.read_text(encoding="utf-8"), folder.path)},
        split=EXTERNAL,
        audit=results["compared"],
        notes=[
            f"Comparison: {show_path(comparison, folder.path)}.",
            f"Its own test subjects: {results['internal_verdict']}",
            *describe_resumed(scored.trials),
            *scored.notes,
        ],
        evidence=Evidence(
            flow=table_cells(read_rows(folder.flow)),
            table_one=table,
            groups=groups,
            forest=forest,
            external=describe_models_external(results, metric=first.primary, unit=first.unit),
            use=compare_use(results["models"], EXTERNAL, positive=scored.cohort.classes[-1]),
        ),
        colours=colours,
        created=timestamp(),
    )
    render_comparison_page(summary, folder.report)


def _pick_disagreements(scored: ScoredTrials, data: DataSettings, count: int) -> list[dict[str, Case]]:
    """Return the volumes on which the models disagree most, see `rank_disagreements`."""
    first = {name: fits[0] for name, fits in scored.scores.items()}
    anchor = next(iter(first.values()))
    aligned = {name: align_scores(anchor, own) for name, own in first.items()}
    rows = rank_disagreements(list(aligned.values()))[:count]
    shown = {}
    for name, own in aligned.items():
        run = next(trial.run for trial in scored.trials if trial.model == name)
        settings = load_settings(run)
        network = load_network(run.network) if settings.model.has_network else None
        cohort = join_new_columns(scored.cohort, run, replace(settings, data=data))
        shown[name] = build_cases(own, rows, cohort, network)
    return [{name: cases[i] for name, cases in shown.items()} for i in range(len(rows))]
