"""Evaluate a finished run, or several as an ensemble, on external data; write the results as a run does."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from voxlift.app.config import EvaluateSettings, TrainSettings
from voxlift.app.data.cohort import Cohort
from voxlift.app.data.sources import describe_left_out
from voxlift.app.evaluation.calibration import list_calibrations
from voxlift.app.evaluation.clinical_use import evaluate_use
from voxlift.app.evaluation.conformal import measure_coverage, read_limits
from voxlift.app.evaluation.evaluate import evaluate_scores
from voxlift.app.evaluation.external import evaluate_external
from voxlift.app.evaluation.metric_names import metric_label
from voxlift.app.evaluation.scores import Predictions
from voxlift.app.external.data import (
    EXTERNAL,
    TrainedVolumes,
    build_external_settings,
    describe_class_names,
    find_trained_volumes,
    load_external,
    prepare_external,
    refuse_trained_names,
    refuse_trained_voxels,
)
from voxlift.app.external.score import (
    average_scores,
    calibrate_scores,
    find_unusual,
    read_internal_scores,
    score_run,
)
from voxlift.app.files import read_json, write_json, write_rows
from voxlift.app.inference.ensemble import Ensemble, open_ensemble
from voxlift.app.inference.groups import evaluate_subgroups
from voxlift.app.progress import phase, print_line
from voxlift.app.report.external_page import count_reasons, write_external_page
from voxlift.app.report.run_facts import describe_range
from voxlift.app.report.tables import format_interval, format_signed
from voxlift.app.report.terminal import print_metrics, print_subgroups
from voxlift.app.runs.cohort import write_cohort
from voxlift.app.runs.configuration import list_extensions, save_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.results import prediction_rows
from voxlift.app.runs.subjects import (
    SubjectColumns,
    build_flow,
    build_subject_rows,
    check_reported_columns,
    collect_columns,
    describe_with_external,
    select_table_columns,
)
from voxlift.app.runtime.failures import build_scoring_hint, translate_failures
from voxlift.data_pipelines.tables.manifest import Manifest

log = logging.getLogger("voxlift")


def evaluate_runs(asked: EvaluateSettings, runs: Sequence[str]) -> int:
    """Score external data with finished runs, write the results into `output`, and print them.

    Args:
        asked: `data`, `output`, `evaluation` and `batch_size`.
        runs: Paths of finished runs; several are averaged.

    Returns:
        The exit status, 0.

    Raises:
        SettingsError, ManifestError, VolumeError: The runs or the data cannot be used, or somebody in it was
            trained on; nothing is written.
    """
    ensemble = open_ensemble(runs, allow_table=True)
    own = ensemble.members[0].settings
    settings = build_external_settings(
        replace(own, evaluation=asked.evaluation, report=asked.report), asked.data
    )
    check_reported_columns(settings)
    trained = find_trained_volumes([member.run for member in ensemble.members])
    manifest, cohort = gather_external(settings, ensemble.classes, trained)
    batch_size = asked.batch_size or own.trainer.batch_size
    with translate_failures(build_scoring_hint(batch_size)):
        scores = score_members(ensemble, cohort, asked, batch_size=batch_size)
    folder = RunFolder(Path(str(asked.output)).expanduser())
    columns = write_external_setup(folder, settings, cohort=cohort, manifest=manifest)
    carried = ensemble.task.carry_over([read_json(member.run.metrics) for member in ensemble.members])
    decided = cohort.task.decide(average_scores(scores), carried)
    metrics = carried | build_metrics(
        ensemble, scores, decided, carried=carried, cohort=cohort, asked=asked, columns=columns
    )
    metrics["compared"] = describe_comparison(trained, asked)
    warnings = find_unusual(cohort, ensemble.members)
    write_rows(
        folder.predictions,
        [
            row | {"warning": warning}
            for row, warning in zip(prediction_rows({EXTERNAL: decided}, cohort.task), warnings, strict=True)
        ],
    )
    internal = [member.run for member in ensemble.members][:1]
    table = describe_with_external(internal, own, columns, cohort, named=asked.evaluation.describe)
    with phase("Writing the page"):
        write_external_page(
            folder,
            settings,
            cohort=cohort,
            scores=decided,
            metrics=metrics,
            table_one=table,
            run=ensemble.members[0].run,
            name=describe_models(ensemble),
            columns=columns,
        )
    write_json(folder.metrics, metrics)  # last, as in a run
    print_results(metrics, describe_models(ensemble), decided)
    print_line(f"Results in {folder.path}, report {folder.report}")
    return 0


def gather_external(
    settings: TrainSettings, classes: Sequence[str], trained: TrainedVolumes
) -> tuple[Manifest, Cohort]:
    """Return the new records, and their prepared volumes, none of which was trained on.

    Args:
        settings: Of the run, with the external data.
        classes: The run's names of the outputs.
        trained: Who and what the run was trained on.

    Raises:
        SettingsError, ManifestError, VolumeError: As in `evaluate_runs`.
    """
    manifest = load_external(settings, classes)
    if manifest.left_out:  # labels that the run does not know, for example
        print_line(f"Rows left out of {manifest.source}: {describe_left_out(manifest)}")
    for sentence in describe_class_names(manifest, settings.data.classes):
        print_line(sentence)
    compares = settings.evaluation.same_names == "refuse"
    refuse_trained_names(manifest, trained, compare_names=compares)
    cohort = prepare_external(manifest, settings)
    refuse_trained_voxels(cohort, trained, manifest.source)
    for note in trained.notes:
        log.warning("%s", note)
    return manifest, cohort


def score_members(
    ensemble: Ensemble, cohort: Cohort, asked: EvaluateSettings, *, batch_size: int
) -> list[Any]:
    """Return each member's predictions for the new volumes.

    Args:
        ensemble: The runs.
        cohort: The external volumes.
        asked: With `data` and `engine`.
        batch_size: Volumes scored at once.
    """
    with phase("Scoring the external data"):
        return [
            score_run(
                member.run,
                build_external_settings(member.settings, asked.data),
                cohort,
                EXTERNAL,
                batch_size=batch_size,
                engine=asked.engine,
            )
            for member in ensemble.members
        ]


def build_metrics(
    ensemble: Ensemble,
    scores: Sequence[Any],
    decided: Any,  # noqa: ANN401 - the task's own class
    *,
    carried: Mapping[str, Any],
    cohort: Cohort,
    asked: EvaluateSettings,
    columns: SubjectColumns,
) -> dict[str, Any]:
    """Return the content of metrics.json, but for what is carried over from the runs.

    Args:
        ensemble: The runs.
        scores: Of each run.
        decided: Their mean, at the thresholds carried over.
        carried: See `Task.carry_over`.
        cohort: The external volumes.
        asked: With `evaluation`.
        columns: Of the external subjects.
    """
    warnings = find_unusual(cohort, ensemble.members)
    internal = read_internal_scores(ensemble.members, carried)
    metrics: dict[str, Any] = {"runs": [str(member.run.path) for member in ensemble.members]}
    metrics |= evaluate_external(
        decided, internal, warnings=warnings, recalibrated_part=asked.evaluation.recalibrate
    )
    metrics["training_range"] |= {
        "reasons": count_reasons(warnings),
        "compared": all(member.training_range is not None for member in ensemble.members),
    }
    if len(internal) == 1:
        metrics["internal"] = evaluate_scores(internal[0])
    if calibrations := ensemble.calibrations:
        metrics["calibration"] = {
            **(calibrations[0].as_json() if len(calibrations) == 1 else list_calibrations(calibrations)),
            "fitted_on": "val",
            EXTERNAL: {"after": evaluate_scores(calibrate_scores(scores, calibrations))},
        }
    if used := evaluate_use(decided, prevalence=asked.evaluation.prevalence):
        metrics["use"] = used
    saved = read_json(ensemble.members[0].run.metrics).get("prediction_sets")
    if saved is not None and len(ensemble.members) == 1:
        metrics["prediction_sets"] = saved | {EXTERNAL: measure_coverage(decided, read_limits(saved))}
    if asked.evaluation.by:
        metrics["subgroups"] = evaluate_subgroups([decided], columns, asked.evaluation)
    return metrics


def write_external_setup(
    folder: RunFolder, settings: TrainSettings, *, cohort: Cohort, manifest: Manifest
) -> SubjectColumns:
    """Write the settings and who the external subjects are; return their columns.

    Args:
        folder: Receives the files.
        settings: Of the run, with the external data.
        cohort: The external volumes.
        manifest: The records of the new table.
    """
    rows = build_subject_rows(cohort, select_table_columns(manifest))
    folder.path.mkdir(parents=True, exist_ok=True)
    save_settings(settings, folder)
    write_rows(folder.subjects, rows)
    write_rows(folder.flow, build_flow(cohort, manifest))
    write_cohort(cohort, folder)
    return collect_columns(rows)


def describe_models(ensemble: Ensemble) -> str:
    """Return the name of the model, or how many are averaged."""
    names = list(dict.fromkeys(member.settings.model.name for member in ensemble.members))
    count = len(ensemble.members)
    return names[0] if count == 1 else f"mean of {count} runs ({', '.join(names)})"


def describe_comparison(trained: TrainedVolumes, asked: EvaluateSettings) -> list[str]:
    """Return sentences on how it was made sure that nobody was trained on."""
    what = "names, files and voxels" if asked.evaluation.same_names == "refuse" else "files and voxels"
    count = len(trained.subjects)
    return [
        f"No external subject is among the {count} of training and validation: {what} were compared.",
        *trained.notes,
    ]


def print_results(metrics: dict[str, Any], name: str, scores: Predictions) -> None:
    """Print the metrics on external data beside those of the internal test, and the subgroups."""
    blocks = {f"{name}, external": metrics["external"]}
    if "internal" in metrics:
        blocks[f"{name}, internal test"] = metrics["internal"]
    print_metrics(blocks, unit=scores.unit)
    difference = metrics.get("difference", {}).get(scores.primary)
    if difference and difference["low"] is not None:
        print_line(
            f"{metric_label(scores.primary, scores.unit)}, external minus internal: "
            f"{format_signed(difference['difference'])} "
            f"{format_interval(difference['low'], difference['high'])} (95 % interval)"
        )
    print_line(describe_range(metrics["training_range"]))
    if "problem" in metrics.get("recalibration", {}):
        print_line(f"No recalibration: {metrics['recalibration']['problem']}")
    if "subgroups" in metrics:
        print_subgroups(metrics["subgroups"])
    for line in list_extensions(RunFolder(Path(path)) for path in metrics["runs"]):
        print_line(line)
