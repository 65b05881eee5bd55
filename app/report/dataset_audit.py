"""Audit the data set that the settings name, and write the folder of the audit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from voxlift.app.config import AuditSettings, DataSettings, SettingsError
from voxlift.app.data.sources import (
    as_auto,
    choose_preprocess,
    dataset_name,
    describe_left_out,
    locate_table,
    probe_images,
    table_options,
)
from voxlift.app.evaluation.table_one import table_rows
from voxlift.app.files import refuse_unwritable, write_json, write_rows
from voxlift.app.progress import counted_bar, phase, progress_bar
from voxlift.app.report.findings import DatasetAudit, suggested_overrides
from voxlift.app.report.pages import timestamp
from voxlift.app.runs.subjects import describe_table
from voxlift.app.tasks.base import Task, task_of
from voxlift.data_pipelines.audit import Finding, audit_manifest, facts_rows
from voxlift.data_pipelines.audit.measures import describe_lost_record, measure_record
from voxlift.data_pipelines.audit.regions import region_row
from voxlift.data_pipelines.audit.targets import describe_targets, label_texts
from voxlift.data_pipelines.parallel import Mapper
from voxlift.data_pipelines.preprocess.auto import AutoPreprocess
from voxlift.data_pipelines.tables.manifest import (
    Manifest,
    ManifestError,
    Record,
    load_manifest,
    load_rows_unchecked,
)
from voxlift.data_pipelines.tables.subjects import SUBJECT_NOTES, describe_several_labels

JSON, CSV, PAGE = "audit.json", "audit.csv", "audit.html"
TABLE_ONE, FLOW, MEASURED = "audit.table1.csv", "audit.flow.csv", "audit.measures.csv"
GEOMETRY = ("shape", "spacing", "axcodes", "dtype", "kind", "channels")


def audit_folder(settings: AuditSettings) -> Path:
    """Return the folder of the results: `output`, or `audit-<name of the data>` under `runs_folder`.

    Raises:
        SettingsError: It is a file, or contains anything but an earlier audit.
    """
    default = Path(settings.runs_folder) / f"audit-{dataset_name(settings.data)}"
    folder = Path(settings.output).expanduser() if settings.output else default
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"output={folder}: expected a folder, but it is a file; choose another output.")
    refuse_unwritable(folder / PAGE, setting=f"output={folder}")
    held = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    others = [name for name in held if not name.startswith((JSON, CSV, PAGE, TABLE_ONE, FLOW, MEASURED))]
    if others:
        raise SettingsError(
            f"output={folder}: expected a new folder or one of an earlier audit, but it contains "
            f"{', '.join(others[:3])}{' and more' * (len(others) > 3)}; choose another output."
        )
    return folder


def audit_dataset(settings: AuditSettings, mapper: Mapper | None = None) -> DatasetAudit:
    """Read every file of the data set; a table that training would refuse is a finding too.

    Args:
        settings: Of the audit.
        mapper: Reads the files; None: threads, one per CPU.

    Raises:
        ManifestError: The table cannot be read at all.
    """
    manifest, about_table = _load(settings.data, task_of(settings))
    grids: dict[int, AutoPreprocess] = {}

    def suggest(records: Sequence[Record]) -> AutoPreprocess:
        asked = as_auto(settings.preprocess)
        probes = probe_images(records, asked, settings.data, workers=settings.workers)
        choice = choose_preprocess(probes, asked, settings.data)
        grids.update(choice.others)
        return choice.decided

    with counted_bar("Reading files") as count:
        audit = audit_manifest(
            manifest,
            time_axis=settings.data.time_axis,
            prefer=settings.preprocess.prefer,
            same_grid=settings.preprocess.same_grid,
            skips_bad=settings.data.on_bad_file == "skip",
            thumbnails=settings.thumbnails > 0,
            mapper=mapper,
            suggest=None if settings.data.name == "medmnist3d" else suggest,  # it has its own preprocessing
            progress=count,
        )
    findings = (*about_table, *audit.findings, *_notes(manifest), *_mixed(manifest), *_left_out(manifest))
    table_one, flow = describe_table(manifest, named=settings.evaluation.describe)
    return DatasetAudit(
        dataset_name(settings.data),
        manifest,
        replace(audit, findings=findings),
        settings.thumbnails,
        table_one,
        flow,
        grids=grids,
    )


def write_audit(found: DatasetAudit, folder: Path) -> None:
    """Write the page, the facts per file and the findings into the folder, which is created."""
    from voxlift.app.report.audit_page import render_audit_page  # Matplotlib: only when all files are read

    folder.mkdir(parents=True, exist_ok=True)
    with phase("Writing the page"):
        render_audit_page(found, folder / PAGE, created=timestamp())
    write_rows(folder / CSV, _rows(found))
    write_rows(folder / FLOW, found.flow)
    if found.table_one:
        write_rows(folder / TABLE_ONE, table_rows(found.table_one))
    write_json(folder / JSON, _summary(found))


def write_measures(found: DatasetAudit, settings: AuditSettings, folder: Path, mapper: Mapper) -> Path:
    """Write `audit.measures.csv`, subjects, images and labels with measures, and return its path."""
    records = found.manifest.records
    measure = partial(measure_record, time_axis=settings.data.time_axis, prefer=settings.preprocess.prefer)
    labels, texts = label_texts(found.manifest)
    with progress_bar("Measuring", len(records)) as advance:
        rows, measured = [], mapper(measure, records, lost=describe_lost_record)
        for record, label, measures in zip(records, labels, measured, strict=True):
            known = {"subject": record.subject, "image": str(record.images[0]), "label": texts[label or 0]}
            rows.append({**known, "split": record.split or "", **measures})
            advance()
    write_rows(folder / MEASURED, rows)
    return folder / MEASURED


def _load(data: DataSettings, task: Task) -> tuple[Manifest, list[Finding]]:
    located = locate_table(data)
    # Missing files are findings about files, not a fault of the table.
    table, options = str(located.table), replace(table_options(located, task), keep_absent=True)
    try:
        return load_manifest(table, options), []
    except ManifestError as error:
        try:
            manifest = load_rows_unchecked(table, options)
        except ManifestError:
            raise error from None
        if not manifest.records:
            raise
        refused = Finding("table_refused", "error", str(error), (str(manifest.source),), spoils=True)
        return manifest, [refused]


def _notes(manifest: Manifest) -> list[Finding]:
    return [
        Finding(kind, "warning" if kind in SUBJECT_NOTES else "note", note, (str(manifest.source),))
        for kind, note in manifest.notes.items()
    ]


def _mixed(manifest: Manifest) -> list[Finding]:
    """Return a note on subjects whose scans have several classes, with what follows."""
    message = describe_several_labels(manifest.records) if manifest.target in {"classes", "grades"} else ""
    return [Finding("several_labels", "note", message, (str(manifest.source),))] if message else []


def _left_out(manifest: Manifest) -> list[Finding]:
    message = f"rows that training does not use: {describe_left_out(manifest)}"
    return [Finding("rows_left_out", "note", message, (str(manifest.source),))] if manifest.left_out else []


def _rows(found: DatasetAudit) -> list[dict[str, str | int | float]]:
    labels, texts = label_texts(found.manifest)
    by_record = {
        id(one): texts[label or 0] for one, label in zip(found.manifest.records, labels, strict=True)
    }
    rows: list[dict[str, str | int | float]] = []
    for record, facts in zip(found.owners, facts_rows(found.audit), strict=True):
        label, split = by_record[id(record)], record.split or ""
        rows.append({"row": record.row, "subject": record.subject, "label": label, "split": split, **facts})
    if any(record.region for record in found.owners):
        rows = [row | region_row(facts) for row, facts in zip(rows, found.owned_regions, strict=True)]
    return rows


def _summary(found: DatasetAudit) -> dict[str, Any]:
    audit, manifest = found.audit, found.manifest
    readable = [one for one in audit.facts if not one.error]
    return {
        "data": found.name,
        "source": str(manifest.source),
        "created": timestamp(),
        "files": len(audit.facts),
        "unreadable": len(audit.facts) - len(readable),
        "subjects": len({record.subject for record in manifest.records}),
        **(
            {
                "classes": _count_values(manifest.classes[record.label] for record in manifest.records),
                **({"positive": manifest.classes[1]} if len(manifest.classes) == 2 else {}),
            }
            if manifest.target == "classes"
            else {"task": manifest.target, "targets": describe_targets(manifest)}
        ),
        "left_out": dict(manifest.left_out),
        "spoils": audit.spoils,
        "findings": [asdict(finding) for finding in audit.findings],
        "suggested": {
            "preprocess": audit.suggested and audit.suggested.preset,
            "spacing": audit.suggested and audit.suggested.spacing,
            "shape": audit.suggested and audit.suggested.shape,
            "grids": {str(budget): own.shape for budget, own in found.grids.items()},
            "costs": list(found.costs),
            "overrides": suggested_overrides(audit),
        },
        "facts": {
            name: _count_values(_format_fact(getattr(one, name)) for one in readable) for name in GEOMETRY
        },
    }


def _format_fact(value: object) -> str:
    return "x".join(f"{side:.5g}" for side in value) if isinstance(value, tuple) else str(value)


def _count_values(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())
