"""Write the page of one run: read the files of its folder, and lay them out as `report.html`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlift.app.config import SPLIT_NAMES, DataSettings, SettingsError, TrainSettings
from voxlift.app.data.sources import dataset_name
from voxlift.app.evaluation.calibration import Calibration
from voxlift.app.evaluation.scores import Predictions, Scores, fits_of
from voxlift.app.evaluation.verdict import run_verdict
from voxlift.app.files import read_json, read_rows
from voxlift.app.inference.groups import describe_sites, find_case_groups, find_case_names
from voxlift.app.report import tables
from voxlift.app.report.case_facts import case_headings
from voxlift.app.report.case_viewer import lay_out_cases
from voxlift.app.report.cases import Case, pick_cases
from voxlift.app.report.checklist import Checklist, build_checklist
from voxlift.app.report.dataset_audit import JSON as AUDIT
from voxlift.app.report.evidence import Evidence, describe_run_subjects, describe_use
from voxlift.app.report.figures import learning_curve_figures
from voxlift.app.report.pages import timestamp, write_page
from voxlift.app.report.result_views import ResultViews, view_results
from voxlift.app.report.tables import Row, show_config
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.results import read_history, read_learning
from voxlift.app.tasks.base import Task, find_task, task_of
from voxlift.data_pipelines.tables.reader import is_number

if TYPE_CHECKING:
    from voxlift.app.data.cohort import Cohort


MAX_FINDINGS = 12  # of the audit; its own page has all of them
NO_AUDIT = "No audit was found: voxlift-audit checks headers, copies and confounding."
CLASSES = find_task("classes")


@dataclass(frozen=True, eq=False)
class RunSummary:
    """Everything that the page of a finished run shows.

    Attributes:
        name: Heading of the page, such as `volume3d on lesions/labels.csv: left or right`.
        model: Name of the model, for the verdict; empty: `name`.
        metrics: Split (`val`, `test`) to its block of metrics.json.
        scores: Split to its scores, from which the curves are drawn; empty leaves the figures out.
        split: Split of the verdict and the figures.
        history: One row per epoch, with `val_` before the validation columns; numbers or their text.
        splits: Rows of the table of splits (how many volumes of each class in each).
        config: Resolved configuration as YAML text.
        environment: Versions, device, precision; nested mappings are shown as `a.b`.
        cost: Any of `parameters`, `flops`, `seconds_per_epoch`, `seconds_per_volume`, `peak_memory_bytes`,
            or others.
        calibration: Fitted on validation, as metrics.json holds it; None leaves its effect out.
        errors: Wrong decisions with the highest predicted probability.
        correct: Correct decisions with the highest predicted probability.
        is_interactive: Whether the cases can be scrolled in a browser.
        audit: Findings of the data audit, one sentence each; None where no audit was made.
        notes: Further sentences for the reader, such as how many rows were left out.
        verdict: Sentences above the page; empty: the AUC of `split` against chance.
        evidence: Sections on the subjects, subgroups and external data.
        checklist: The reporting checklist; None leaves it out.
        created: Date and time, as text.
    """

    name: str
    metrics: Mapping[str, Mapping[str, object]]
    model: str = ""
    scores: Mapping[str, Predictions] = field(default_factory=dict)
    split: str = "test"
    history: Sequence[Row] = ()
    splits: Sequence[Row] = ()
    config: str = ""
    environment: Mapping[str, object] = field(default_factory=dict)
    cost: Mapping[str, object] = field(default_factory=dict)
    calibration: Calibration | None = None
    errors: Sequence[Case] = ()
    correct: Sequence[Case] = ()
    is_interactive: bool = True
    audit: Sequence[str] | None = None
    notes: Sequence[str] = ()
    verdict: str = ""
    evidence: Evidence = field(default_factory=Evidence)
    checklist: Checklist | None = None
    created: str = ""


def write_run_page(
    run: RunFolder,
    settings: TrainSettings,
    *,
    cohort: Cohort,
    scores: Mapping[str, Predictions],
    metrics: Mapping[str, Any],
    network: Any | None = None,  # noqa: ANN401 - untyped Keras
) -> Path:
    """Write `report.html` of a run and return its path.

    Args:
        run: Folder of the run, whose other files except metrics.json are written already.
        settings: Settings of the run.
        cohort: The cohort whose volumes are shown.
        scores: Scores of each split.
        metrics: Content of its metrics.json.
        network: Network for Grad-CAM over them; None shows them without.
    """
    task = task_of(settings)
    scores = {name: task.decide(one, metrics) for name, one in scores.items()}
    split = "test" if "test" in scores else "val"
    errors, correct = pick_cases(scores[split], cohort, network, settings.report.cases)
    groups, names = find_case_groups(run, settings, scores[split]), find_case_names(run, settings)
    summary = RunSummary(
        name=f"{settings.model.name} on {describe_task(settings.data)}",
        model=settings.model.name,
        metrics=metric_blocks(metrics),
        scores=scores,
        split=split,
        history=read_history(run),
        splits=count_splits(run, task, cohort.classes),
        config=show_config(run.config.read_text(encoding="utf-8"), run.path),
        environment=read_json(run.environment),
        cost=metrics["cost"],
        calibration=Calibration.from_json(metrics["calibration"]) if "calibration" in metrics else None,
        errors=[add_groups(case, groups, names) for case in errors],
        correct=[add_groups(case, groups, names) for case in correct],
        is_interactive=settings.report.interactive,
        audit=describe_data(run, settings),
        notes=[*read_learning(run, settings), *_notes(cohort, metrics)],
        evidence=describe_run_subjects(
            run,
            settings,
            subgroups=metrics.get("subgroups"),
            ablation={"": metrics.get("ablation")},
            use=describe_use(metrics, split, positive=cohort.classes[-1]),
        ),
        checklist=build_checklist(run, settings, metrics),
        created=timestamp(),
    )
    return render_run_page(summary, run.report)


def add_groups(
    case: Case, groups: Mapping[str, Mapping[str, str]], names: Mapping[str, str] | None = None
) -> Case:
    """Return the case with the groups and the name of its subject.

    Args:
        case: The case.
        groups: Name of a volume to the group in each column of `evaluation.by`.
        names: Name of a volume to that of its subject, where it is another than that in the scores.
    """
    facts = replace(case.facts, groups=groups.get(case.item, {}))
    return replace(case, facts=facts, subject=(names or {}).get(case.item, case.subject))


def metric_blocks(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of the page's table: val and test of metrics.json, then test per subject."""
    blocks = {name: metrics[name] for name in ("val", "test") if name in metrics}
    by_subject = metrics.get("by_subject", {})
    return blocks | {f"{name}, per subject": block for name, block in by_subject.items() if name == "test"}


def count_splits(
    run: RunFolder, task: Task = CLASSES, names: tuple[str, ...] = ()
) -> list[dict[str, object]]:
    """Return the rows of the table of splits: subjects and volumes of each class, or with each finding.

    Splits are in the order train, val, test, then others; classes in that of their index.

    Args:
        run: With splits.csv.
        task: Of the run.
        names: Of its outputs.
    """
    rows = read_rows(run.splits)
    groups = [(row["split"], group, row["subject"]) for row in rows for group in task.groups_of(row, names)]
    volumes = Counter((split, group) for split, group, _ in groups)
    subjects = Counter((split, group) for split, group, _ in set(groups))
    known = [[*SPLIT_NAMES, *(own[0] for own in groups)], [*names, *(own[1] for own in groups)]]
    order = [list(dict.fromkeys(own)) for own in known]
    return [
        {"split": split, task.noun: group, "subjects": subjects[split, group], "volumes": n}
        for (split, group), n in sorted(
            volumes.items(), key=lambda item: (order[0].index(item[0][0]), order[1].index(item[0][1]))
        )
    ]


def describe_task(data: DataSettings) -> str:
    """Return the data and what is predicted, for a heading: the table with its folder, and the classes.

    Classes that are numbers, or more than three, are named by their column.

    >>> describe_task(DataSettings(name="manifest", table="lesions/labels.csv", classes=["left", "right"]))
    'lesions/labels.csv: left or right'
    >>> describe_task(DataSettings(name="manifest", table="/data/ages.csv", label_column="age"))
    'data/ages.csv: age'
    """
    if data.name != "manifest" or data.table is None:
        return f"phantom {data.task}" if data.task else Path(data.npz or data.name).stem
    table = Path(str(data.table)).expanduser()
    words = [name for name in map(str, data.classes) if not is_number(name)]
    are_words = 2 <= len(words) == len(data.classes) <= 3 and not data.label_columns
    predicted = " or ".join(words) if are_words else ", ".join(data.label_columns) or data.label_column
    return f"{'/'.join(filter(None, (table.parent.name, table.name)))}: {predicted}"


def _notes(cohort: Cohort, metrics: Mapping[str, Any]) -> list[str]:
    notes = describe_sites(metrics)
    threshold, reason = metrics.get("threshold"), metrics.get("threshold_reason")
    if threshold is not None:
        positive = cohort.classes[1]
        notes.append(
            f"Decision rule: {positive} where its predicted probability is at least {threshold:.3f}. "
            f"Threshold: {reason}."
        )
    elif reason and len(cohort.classes) == 2:
        notes.append(f"Decision threshold: {reason}.")
    notes += describe_thresholds(metrics) + describe_baseline(metrics)
    if cohort.left_out:
        notes.append(
            f"{len(cohort.left_out)} unusable file(s) were left out; left_out.csv lists them with the reason."
        )
    return notes


def describe_thresholds(metrics: Mapping[str, Any]) -> list[str]:
    """Return a sentence with the threshold of each finding and its reason; none for other tasks."""
    thresholds, reasons = metrics.get("thresholds", {}), metrics.get("threshold_reasons", {})
    if not thresholds:
        return []
    rules = "; ".join(f"{name} {value:.3f} ({reasons[name]})" for name, value in thresholds.items())
    return [f"A finding is predicted where its probability is at least its threshold: {rules}."]


def describe_baseline(metrics: Mapping[str, Any]) -> list[str]:
    """Return a sentence with the constant predictions beside those of a number; none for other tasks."""
    training = metrics.get("training")
    if not training:
        return []
    mean, median = training["mean"], training["median"]
    text = f"Without any image, always predicting the training mean ({mean:.4g}) or median ({median:.4g})"
    return [f"{text} gives the errors in the last rows of the table of metrics."]


def render_run_page(summary: RunSummary, path: Path) -> Path:
    """Write the summary of a run as one HTML file and return its path."""
    return write_page("run.html.j2", path, run_page_values(summary))


def run_page_values(summary: RunSummary) -> dict[str, Any]:
    """Return everything that the template of a run needs."""
    scores = summary.scores.get(summary.split)
    block = summary.metrics.get(summary.split, {})
    unit = scores.unit if scores is not None else ""
    views, headings = ResultViews(), ("Errors", "Correct decisions")
    if scores is not None:
        known = {} if summary.calibration is None else {"": [summary.calibration]}
        views = view_results({"": [scores]}, summary.split, calibrations=known)
        headings = case_headings(scores)
    groups = zip(headings, (summary.errors, summary.correct), strict=True)
    cases = lay_out_cases(
        [(heading, [{"": case} for case in own]) for heading, own in groups],
        is_interactive=summary.is_interactive,
    )
    return {
        "title": summary.name,
        "created": summary.created,
        "split": summary.split,
        "notes": summary.notes,
        "audit": summary.audit,
        "splits": tables.table_cells(summary.splits),
        "environment": tables.flat_rows(summary.environment),
        "evidence": summary.evidence,
        "checklist": summary.checklist,
        "verdict": summary.verdict
        or run_verdict(block, name=summary.model or summary.name, split=summary.split, unit=unit),
        "rows": tables.metric_rows(summary.metrics, unit),
        "class_rows": tables.class_rows(summary.metrics, views.outcomes),
        "counts": tables.count_rows(summary.metrics),
        "columns": list(summary.metrics),
        "costs": tables.cost_rows({summary.name: summary.cost}),
        "cost_columns": [],
        "histories": learning_curve_figures({summary.name: summary.history}),
        "cases": cases,
        "viewer": cases.viewer,
        "configs": {"": summary.config} if summary.config else {},
        "temperature": _calibration_table(scores, summary.calibration),
        "views": views,
    }


def _calibration_table(scores: Predictions | None, calibration: Calibration | None) -> Any:  # noqa: ANN401
    classes = fits_of(Scores, [scores]) if scores is not None else None
    if classes is None or calibration is None:
        return None
    return tables.calibration_table({"": classes[0]}, {"": [calibration]})


def describe_data(run: RunFolder, settings: TrainSettings) -> list[str]:
    """Return sentences on the data of a run, with the findings of its audit if there is one.

    That is the audit which `voxlift-audit` writes below `runs_folder` by default; one that is older than the
    table of labels is ignored.
    """
    rows = read_rows(run.splits)
    subjects = len({row["subject"] for row in rows})
    sentences = [
        f"{len(rows)} volumes of {subjects} subjects were read and prepared.",
        "No subject and no image is in two splits: names and hashes of the voxels were compared.",
    ]
    found = _read_audit(settings)
    return [
        *sentences,
        *describe_left_out_files(run),
        *([NO_AUDIT] if found is None else _describe_audit(found)),
    ]


def describe_left_out_files(run: RunFolder) -> list[str]:
    """Return a sentence on the unusable files that were left out; none where all were used."""
    if not run.left_out.exists():
        return []
    count = len(read_rows(run.left_out))
    return [f"{count} unusable files were left out; left_out.csv lists the reasons."]


def _read_audit(settings: TrainSettings) -> dict[str, Any] | None:
    path = Path(settings.runs_folder) / f"audit-{dataset_name(settings.data)}" / AUDIT
    table = Path(str(settings.data.table)).expanduser()
    try:
        if table.is_file() and table.stat().st_mtime > path.stat().st_mtime:
            return None
        return read_json(path)
    except (OSError, SettingsError):
        return None


def _describe_audit(found: dict[str, Any]) -> list[str]:
    findings = found.get("findings", [])
    counts = Counter(str(one.get("severity")) for one in findings)
    counted = ", ".join(f"{count} {severity}{'s' * (count > 1)}" for severity, count in counts.items())
    files = f"{found.get('files')} files, {found.get('unreadable')} of them unreadable"
    sentences = [f"Audit of {found.get('created')}: {files}; {counted or 'nothing was found'}."]
    sentences += [f"{one.get('severity')}: {one.get('message')}" for one in findings[:MAX_FINDINGS]]
    if len(findings) > MAX_FINDINGS:
        sentences.append(f"and {len(findings) - MAX_FINDINGS} more, on the page of the audit")
    return sentences
