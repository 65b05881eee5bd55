"""Lay out the results of a finished run on external data as one HTML file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlift.app.config import TrainSettings
from voxlift.app.evaluation.calibration import Calibration
from voxlift.app.evaluation.metric_names import interval_of, metric_label
from voxlift.app.evaluation.scores import Predictions
from voxlift.app.evaluation.table_one import TableOneRow, table_rows
from voxlift.app.evaluation.verdict import MIN_SUBJECTS, format_p_value
from voxlift.app.files import read_json, read_rows, write_rows
from voxlift.app.inference.groups import find_case_groups, find_case_names
from voxlift.app.report.cases import pick_cases
from voxlift.app.report.evidence import (
    Evidence,
    describe_use,
    show_subgroups,
    table_one_cells,
    value_and_interval,
)
from voxlift.app.report.pages import timestamp
from voxlift.app.report.run_facts import external_verdict
from voxlift.app.report.run_page import (
    RunSummary,
    add_groups,
    count_splits,
    describe_baseline,
    describe_left_out_files,
    describe_task,
    describe_thresholds,
    render_run_page,
)
from voxlift.app.report.tables import (
    MISSING,
    TableCells,
    format_interval,
    format_signed,
    format_value,
    show_config,
    show_path,
    table_cells,
)
from voxlift.app.runs.configuration import describe_extensions
from voxlift.app.runs.folder import RunFolder, load_network
from voxlift.app.runs.subjects import SubjectColumns

if TYPE_CHECKING:
    from voxlift.app.data.cohort import Cohort


def write_external_page(
    folder: RunFolder,
    settings: TrainSettings,
    *,
    cohort: Cohort,
    scores: Predictions,
    metrics: Mapping[str, Any],
    table_one: Sequence[TableOneRow],
    run: RunFolder,
    name: str,
    columns: SubjectColumns | None = None,
) -> Path:
    """Write `report.html` and `table1.csv` of external data, and return the path of the page.

    Args:
        folder: Receives the page; its other files are written already.
        settings: Of the run, with the external data.
        cohort: The external volumes.
        scores: Their predictions, at the run's threshold.
        metrics: Content of metrics.json.
        table_one: The table of subjects.
        run: The run, or the first of several; its network draws Grad-CAM.
        name: Of the model or models.
        columns: Of the external subjects, for the groups of the cases.
    """
    if table_one:
        write_rows(folder.table_one, table_rows(table_one))
    network = load_network(run.network) if settings.model.has_network else None
    errors, correct = pick_cases(scores, cohort, network, settings.report.cases)
    of_case = find_case_groups(folder, settings, scores, columns)
    names = find_case_names(folder, settings, columns)
    blocks = {"external": metrics["external"]}
    if "internal" in metrics:
        blocks["internal test"] = metrics["internal"]
    calibration = metrics.get("calibration", {})
    groups, forest = show_subgroups({"": metrics.get("subgroups", {})})
    summary = RunSummary(
        name=f"{name} on external data {describe_task(settings.data)}",
        verdict=external_verdict(metrics, name=name, metric=scores.primary, unit=scores.unit),
        metrics=blocks,
        scores={"external": scores},
        split="external",
        splits=count_splits(folder, cohort.task, cohort.classes),
        config=show_config(folder.config.read_text(encoding="utf-8"), folder.path),
        environment=read_json(run.environment),
        calibration=Calibration.from_json(calibration) if len(metrics["runs"]) == 1 and calibration else None,
        errors=[add_groups(case, of_case, names) for case in errors],
        correct=[add_groups(case, of_case, names) for case in correct],
        is_interactive=settings.report.interactive,
        audit=[*_describe_data(folder, cohort), *metrics["compared"]],
        notes=[
            f"Run: {', '.join(show_path(path, folder.path) for path in metrics['runs'])}.",
            f"Table: {show_path(str(settings.data.table), folder.path)}.",
            *(text for path in metrics["runs"] for text in describe_extensions(RunFolder(Path(path)))),
            *describe_thresholds(metrics),
            *describe_baseline(metrics),
        ],
        evidence=Evidence(
            flow=table_cells(read_rows(folder.flow)),
            table_one=table_one_cells(table_one),
            groups=groups,
            forest=forest,
            external=describe_external(metrics, metric=scores.primary, unit=scores.unit),
            use=describe_use(metrics, "external", positive=cohort.classes[-1]),
        ),
        created=timestamp(),
    )
    return render_run_page(summary, folder.report)


def _describe_data(folder: RunFolder, cohort: Cohort) -> list[str]:
    subjects = len({record.subject for record in cohort.records})
    sentences = [
        f"{len(cohort.records)} volumes of {subjects} subjects were read and prepared as in the run."
    ]
    return [*sentences, *describe_left_out_files(folder)]


def describe_external(
    metrics: Mapping[str, Any], *, metric: str = "auc", unit: str = ""
) -> list[tuple[str, TableCells, str]]:
    """Return the sections of the page on external data, from its metrics.json.

    Args:
        metrics: Content of metrics.json.
        metric: Of the verdict.
        unit: Of a predicted number.
    """
    sections = []
    if metrics.get("difference"):
        rows = [
            {"metric": metric_label(name, unit), **_difference_cells(one, is_few=_has_few_subjects(metrics))}
            for name, one in metrics["difference"].items()
        ]
        sections.append(("Difference from the internal test", table_cells(rows), _difference_note(metrics)))
    sections += _range_section(metrics["training_range"], metric, unit)
    return [*sections, *_threshold_section(metrics), *_calibration_section(metrics, unit)]


def _difference_note(metrics: Mapping[str, Any]) -> str:
    """Return how differences from the internal test were found, as far as the task has them."""
    has_auc = any(name.partition("[")[0] == "auc" for name in metrics["difference"])
    how = (
        "Interval and p-value of a ROC AUC with two outcomes are DeLong's with independent variances; the "
        "others come from two bootstraps over subjects."
        if has_auc
        else "Intervals and p-values come from two bootstraps over subjects."
    )
    note = (
        f"External minus internal test, on different subjects, with 95 % intervals. {how} The p-values are "
        "not corrected for the number of metrics."
    )
    return f"{note} A decision threshold is the run's own." if metrics.get("threshold_comparison") else note


def _threshold_section(metrics: Mapping[str, Any]) -> list[tuple[str, TableCells, str]]:
    """Return the thresholds carried over beside those that the external data would choose."""
    compared = {name: one for name, one in metrics.get("threshold_comparison", {}).items() if "own" in one}
    rows = [
        {
            **({"outcome": name} if len(compared) > 1 else {}),
            "threshold": title,
            "value": format_value(one[key]["threshold"]),
            **_labelled(one[key]),
        }
        for name, one in compared.items()
        for title, key in (("carried over", "carried_over"), ("best on these data", "own"))
    ]
    note = (
        "The second threshold was chosen on the same subjects on which it is measured here, for the best "
        "balanced accuracy: its figures are optimistic, and no other figure of this page uses it."
    )
    return [("Decision threshold", table_cells(rows), note)] if rows else []


def describe_models_external(
    results: Mapping[str, Any], *, metric: str = "auc", unit: str = ""
) -> list[tuple[str, TableCells, str]]:
    """Return the sections of the page of a comparison on external data, from its comparison.json.

    Args:
        results: Content of comparison.json.
        metric: Of the verdict.
        unit: Of a predicted number.
    """
    rows = [
        {"model": name, **_difference_cells(model["difference"][metric], is_few=_has_few_subjects(model))}
        for name, model in results["models"].items()
        if model["difference"]
    ]
    note = (
        f"{metric_label(metric, unit)} on the external subjects minus that on each model's own test "
        "subjects, which are others, with 95 % intervals; averaged over folds and seeds. The comparison of "
        "the models with each other is paired: see above."
    )
    return [
        ("Difference from the internal test", table_cells(rows), note),
        *_range_section(results["training_range"], metric, unit),
    ]


def _has_few_subjects(blocks: Mapping[str, Any]) -> bool:
    """Return whether one side has too few subjects for two classes of at least `MIN_SUBJECTS`."""
    counts = [blocks[name]["subjects"] for name in ("external", "internal") if name in blocks]
    return bool(min(counts) < 2 * MIN_SUBJECTS)


def _difference_cells(one: Mapping[str, Any], *, is_few: bool) -> dict[str, str]:
    """Return the cells of a difference; few subjects show no p-value, as in a comparison."""
    interval = format_interval(one["low"], one["high"])
    return {
        "internal test": format_value(one["internal"]),
        "external": format_value(one["external"]),
        "difference": f"{format_signed(_number(one['difference']))} {interval}".strip(),
        "p": MISSING if is_few else format_p_value(_number(one["p_value"])),
    }


def _range_section(known: Mapping[str, Any], metric: str, unit: str) -> list[tuple[str, TableCells, str]]:
    if "compared" in known and not known["compared"]:
        note = "The run saved no ranges of its training scans (an older version), so nothing was compared."
        return [("Training range", ([], []), note)]
    rows = [{"scans": "all", "count": known["volumes"]}]
    rows += [{"scans": f"outside: {one}", "count": count} for one, count in known.get("reasons", {}).items()]
    table: list[dict[str, object]] = [*rows]
    for title, key in (("without those outside", "inside"), ("only those outside", "only_outside")):
        if key in known:
            block = known[key]
            low, high = interval_of(block, metric) or (None, None)
            value = f"{format_value(block.get(metric))} {format_interval(low, high)}"
            table.append({"scans": f"{metric_label(metric, unit)} {title}: {value}", "count": block["n"]})
    note = (
        f"{known['outside']} of {known['volumes']} scans lie outside the range of spacing, size, stored axes "
        "and intensities of the training scans; predictions.csv names for each what is unusual. A scan can "
        "count under several reasons."
    )
    return [("Training range", table_cells(table), note)]


def _calibration_section(metrics: Mapping[str, Any], unit: str) -> list[tuple[str, TableCells, str]]:
    blocks = {"external": metrics["calibration_external"]}
    if "calibration_internal" in metrics:
        blocks = {"internal test": metrics["calibration_internal"], **blocks}
    is_number = "mae" in metrics["calibration_external"]
    note = (
        "Line of measured on predicted: intercept 0 and slope 1 are perfect. "
        if is_number
        else "Calibration intercept: calibration in the large, 0 where the mean prediction fits; slope: "
        "below 1 where probabilities are too extreme. "
    ) + "Intervals: bootstrap over subjects."
    found = metrics.get("recalibration", {})
    if "problem" in found:
        note += f" There is no recalibration: {found['problem']}"
    elif found:
        part, rest = found["fitted_on_subjects"], found["scored_subjects"]
        blocks |= {
            f"before recalibration, {rest} subjects": found["before"],
            "after, the same": found["after"],
        }
        of_class = "" if is_number or "outcomes" in found["before"] else " of each class"
        note += (
            f" Recalibrated on {part} external subjects ({100 * found['fraction']:g} %{of_class}), which are "
            "not among those scored after it."
        )
    return [("Calibration on external data", table_cells(_calibration_rows(blocks, unit)), note)]


def _calibration_rows(blocks: Mapping[str, Mapping[str, Any]], unit: str) -> list[dict[str, object]]:
    """Return a row for each block, and for each of its outcomes."""
    flat = {}
    for title, block in blocks.items():
        flat[title] = block
        flat |= {f"{title}: {name}": one for name, one in block.get("outcomes", {}).items()}
    hidden = ("n", "intervals", "outcomes")
    keys = list(dict.fromkeys(key for one in flat.values() for key in one if key not in hidden))
    return [
        {
            "": title,
            **{metric_label(key, unit): " ".join(value_and_interval(one, key)).strip() for key in keys},
        }
        for title, one in flat.items()
    ]


def count_reasons(warnings: Iterable[str]) -> dict[str, int]:
    """Return for each kind of unusual property the number of scans, most frequent first.

    >>> count_reasons(["spacing along depth is 9 mm (training 1 to 2)", "", "stored as LAS (training RAS)"])
    {'spacing along depth': 1, 'stored axes': 1}
    """
    counts: dict[str, int] = {}
    for text in warnings:
        for kind in dict.fromkeys(_kind_of(phrase) for phrase in text.split("; ") if phrase):
            counts[kind] = counts.get(kind, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _kind_of(phrase: str) -> str:
    plain = phrase.partition(" (training")[0]
    if plain.startswith("stored as"):
        return "stored axes"
    if " voxels along " in plain:
        return f"voxels along {plain.partition(' voxels along ')[2]}"
    return plain.partition(" is ")[0]


def _labelled(block: Mapping[str, Any]) -> dict[str, str]:
    return {metric_label(name): format_value(value) for name, value in block.items() if name != "threshold"}


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
