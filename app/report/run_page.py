"""Fills a run's page of `app.report` from the files of its folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlift.app.config import DataSettings, SettingsError, TrainSettings
from voxlift.app.evaluation.calibration import fit_temperature
from voxlift.app.evaluation.scores import Scores, with_threshold
from voxlift.app.files import read_json, read_rows
from voxlift.app.report.cases import pick_cases
from voxlift.app.report.data_audit import JSON, data_name
from voxlift.app.report.html import now
from voxlift.app.report.summary import RunSummary
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.predictions import scores_from_rows

if TYPE_CHECKING:
    from voxlift.app.data.cohort import Cohort


def write_run_page(
    run: RunFolder,
    metrics: Mapping[str, Any],
    cohort: Cohort,
    network: Any | None = None,  # noqa: ANN401 - untyped Keras
) -> None:
    """Write `report.html` of a run that has its other files already; the network draws Grad-CAM on it."""
    from voxlift.app.report.html import write_run_report  # Matplotlib: only when there is something to draw

    settings = load_settings(run)
    scores = read_scores(run, tuple(settings.data.classes), threshold=metrics["threshold"])
    split = "test" if "test" in scores else "val"
    worst, surest = pick_cases(scores[split], cohort, network)
    summary = RunSummary(
        name=f"{settings.model.name} on {spoken_task(settings.data)}",
        metrics=metric_blocks(metrics),
        scores=scores,
        split=split,
        history=read_history(run),
        splits=count_splits(run),
        config=run.config.read_text(encoding="utf-8"),
        environment=read_json(run.environment),
        cost=metrics["cost"],
        temperature=fit_temperature(scores["val"]),
        worst=worst,
        surest=surest,
        audit=describe_data(run, settings),
        notes=_notes(cohort, metrics),
        created=now(),
    )
    write_run_report(summary, run.report)


def metric_blocks(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The blocks of metrics.json in the order of the page's columns; per subject where volumes are more."""
    blocks = {name: metrics[name] for name in ("val", "test") if name in metrics}
    by_subject = metrics.get("by_subject", {})
    return blocks | {f"{name}, per subject": block for name, block in by_subject.items() if name == "test"}


def read_scores(run: RunFolder, classes: tuple[str, ...], *, threshold: float | None) -> dict[str, Scores]:
    """The scores of each split of a run, from `predictions.csv`.

    Args:
        run: the folder.
        classes: names in index order.
        threshold: on the probability of class 1, as validation chose it; None for several classes.
    """
    rows = read_rows(run.predictions)
    present = dict.fromkeys(row["split"] for row in rows)
    scores = {split: scores_from_rows(rows, classes, split=split) for split in present}
    if threshold is None:
        return scores
    return {split: with_threshold(values, threshold) for split, values in scores.items()}


def read_history(run: RunFolder) -> list[dict[str, str]]:
    """One row per epoch; none of a run that has no epochs."""
    return read_rows(run.history) if run.history.exists() else []


def count_splits(run: RunFolder) -> list[dict[str, object]]:
    """Rows of the table of splits: volumes of each class."""
    counts = Counter((row["split"], row["label"]) for row in read_rows(run.splits))
    return [{"split": split, "class": label, "volumes": n} for (split, label), n in counts.items()]


def _notes(cohort: Cohort, metrics: Mapping[str, Any]) -> list[str]:
    notes = []
    threshold, reason = metrics.get("threshold"), metrics.get("threshold_reason")
    if threshold is not None:
        notes.append(f"Decision threshold {threshold:.3f} on {cohort.classes[1]}, {reason}.")
    elif reason and len(cohort.classes) == 2:
        notes.append(f"Decision threshold {reason}.")
    if cohort.left_out:
        notes.append(
            f"{len(cohort.left_out)} unusable file(s) were left out; left_out.csv names them with the reason."
        )
    return notes


NO_AUDIT = "No audit was found: voxlift-audit looks at headers, copies and confounding."
MOST = 12  # findings on the page; the audit's own page has them all


def describe_data(run: RunFolder, settings: TrainSettings) -> list[str]:
    """Sentences on the data that a run was trained and scored on.

    The audit is the one that `voxlift-audit` leaves under `runs_folder` by default; one that is older than
    the table of labels is not used.
    """
    found = _read_audit(settings)
    if found is None:
        return [
            *_describe_rows(run),
            NO_AUDIT,
        ]
    return [*_describe_rows(run), *_describe_audit(found)]


def spoken_task(data: DataSettings) -> str:
    """What is told apart, for a heading: the task, or the column of a table of labels.

    >>> spoken_task(DataSettings(name="manifest", label_column="territory"))
    'territory'
    """
    return data.task or (data.label_column if data.name == "manifest" else None) or data.name


def _read_audit(settings: TrainSettings) -> dict[str, Any] | None:
    path = Path(settings.runs_folder) / f"audit-{data_name(settings.data)}" / JSON
    table = Path(str(settings.data.table)).expanduser()
    try:
        if table.is_file() and table.stat().st_mtime > path.stat().st_mtime:
            return None
        return read_json(path)
    except (OSError, SettingsError):
        return None


def _describe_rows(run: RunFolder) -> list[str]:
    rows = read_rows(run.splits)
    subjects = len({row["subject"] for row in rows})
    sentences = [
        f"{len(rows)} volumes of {subjects} subjects were read and prepared.",
        "No subject and no image is in two splits: names and hashes of the voxels were compared.",
    ]
    if run.left_out.exists():
        left = read_rows(run.left_out)
        sentences.append(f"{len(left)} unusable files were left out; left_out.csv tells why.")
    return sentences


def _describe_audit(found: dict[str, Any]) -> list[str]:
    findings = found.get("findings", [])
    counts = Counter(str(one.get("severity")) for one in findings)
    spoken = ", ".join(f"{count} {severity}{'s' * (count > 1)}" for severity, count in counts.items())
    read = f"{found.get('files')} files, {found.get('unreadable')} of them unreadable"
    sentences = [f"Audit of {found.get('created')}: {read}; {spoken or 'nothing was found'}."]
    sentences += [f"{one.get('severity')}: {one.get('message')}" for one in findings[:MOST]]
    if len(findings) > MOST:
        sentences.append(f"and {len(findings) - MOST} more, on the audit's page")
    return sentences
