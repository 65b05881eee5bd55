"""From the data settings to an audit, and from the audit to its folder."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from voxlift.app.config import AuditSettings, DataSettings, SettingsError
from voxlift.app.data.sources import describe_left_out, locate_table, table_options
from voxlift.app.files import refuse_unwritable, write_json, write_rows
from voxlift.app.progress import console, counted_bar
from voxlift.app.report.findings import AuditedData, suggested_overrides
from voxlift.app.report.html import now
from voxlift.data_pipelines.audit import Audit, Facts, Finding, audit_manifest, facts_rows
from voxlift.data_pipelines.audit.lenient import load_all_rows
from voxlift.data_pipelines.tables.manifest import Manifest, ManifestError, load_manifest

JSON, CSV, PAGE = "audit.json", "audit.csv", "audit.html"
GEOMETRY = ("shape", "spacing", "axcodes", "dtype", "kind", "channels")


def audit_folder(settings: AuditSettings) -> Path:
    """Where the results go: `output`, or `audit-<name of the data>` under `runs_folder`.

    Raises:
        SettingsError: it is a file, or holds anything but an earlier audit.
    """
    default = Path(settings.runs_folder) / f"audit-{data_name(settings.data)}"
    folder = Path(settings.output).expanduser() if settings.output else default
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"output={folder}: expected a folder, but it is a file; choose another output.")
    refuse_unwritable(folder / PAGE, asked=f"output={folder}")
    held = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    others = [name for name in held if not name.startswith((JSON, CSV, PAGE))]
    if others:
        raise SettingsError(
            f"output={folder}: expected a new folder or one of an earlier audit, but it holds "
            f"{', '.join(others[:3])}{' and more' * (len(others) > 3)}; choose another output."
        )
    return folder


def data_name(data: DataSettings) -> str:
    """A short name of the data set, fit for a folder; a table's folder joins in, for many are `labels.csv`.

    >>> data_name(DataSettings(name="manifest", table="/data/lesions/labels.csv"))
    'lesions-labels'
    """
    if data.name == "phantom":
        return f"phantom-{data.task}"
    path = Path(str(data.npz if data.name == "medmnist3d" else data.table)).expanduser().absolute()
    parts = [path.stem] if data.name == "medmnist3d" or path.is_dir() else [path.parent.name, path.stem]
    return re.sub(r"[^\w.-]+", "_", "-".join(part for part in parts if part)) or data.name


def audit_data(settings: AuditSettings) -> AuditedData:
    """Read every file of the data set; a table that training would refuse is a finding too.

    Raises:
        ManifestError: the table cannot be read at all.
    """
    manifest, about_table = _load(settings.data)
    with counted_bar("Reading files") as count:
        audit = audit_manifest(
            manifest,
            time_axis=settings.data.time_axis,
            prefer=settings.preprocess.prefer,
            same_grid=settings.preprocess.same_grid,
            skips_bad=settings.data.on_bad_file == "skip",
            thumbnails=settings.thumbnails > 0,
            workers=settings.workers or os.cpu_count() or 1,
            progress=count,
        )
    findings = (*about_table, *audit.findings, *_left_out(manifest))
    if settings.data.name == "medmnist3d":  # which brings its own preprocessing
        audit = replace(audit, suggested_preprocess=None, suggested_spacing=None, suggested_shape=None)
    return AuditedData(
        data_name(settings.data), manifest, replace(audit, findings=findings), settings.thumbnails
    )


def write_audit(found: AuditedData, folder: Path) -> None:
    """Write the page, the facts per file and the findings into the folder, which is made."""
    from voxlift.app.report.audit_page import write_audit_page  # Matplotlib: only when all files are read

    folder.mkdir(parents=True, exist_ok=True)
    with console.status("Writing the page"):
        write_audit_page(found, folder / PAGE, created=now())
    write_rows(folder / CSV, _rows(found))
    write_json(folder / JSON, _summary(found))


def _load(data: DataSettings) -> tuple[Manifest, list[Finding]]:
    located = locate_table(data)
    # What is absent is told with the files: the table itself is in order.
    table, options = str(located.table), replace(table_options(located), keep_absent=True)
    try:
        return load_manifest(table, options), []
    except ManifestError as error:
        try:
            manifest = load_all_rows(table, options)
        except ManifestError:
            raise error from None
        if not manifest.records:
            raise
        refused = Finding("table_refused", "error", str(error), (str(manifest.source),), spoils=True)
        return manifest, [refused]


def _left_out(manifest: Manifest) -> list[Finding]:
    message = f"rows that no training would use: {describe_left_out(manifest)}"
    return [Finding("rows_left_out", "note", message, (str(manifest.source),))] if manifest.left_out else []


def _rows(found: AuditedData) -> list[dict[str, str | int | float]]:
    classes = found.manifest.classes
    rows: list[dict[str, str | int | float]] = []
    for record, facts in zip(found.owners, facts_rows(found.audit), strict=True):
        label, split = classes[record.label], record.split or ""
        rows.append({"row": record.row, "subject": record.subject, "label": label, "split": split, **facts})
    return rows


def _summary(found: AuditedData) -> dict[str, Any]:
    audit, manifest = found.audit, found.manifest
    return {
        "data": found.name,
        "source": str(manifest.source),
        "created": now(),
        "files": len(audit.facts),
        "unreadable": sum(bool(one.error) for one in audit.facts),
        "subjects": len({record.subject for record in manifest.records}),
        "classes": _counted(manifest.classes[record.label] for record in manifest.records),
        "left_out": dict(manifest.left_out),
        "spoils": audit.spoils,
        "findings": [asdict(finding) for finding in audit.findings],
        "suggested": {
            "preprocess": audit.suggested_preprocess,
            "spacing": audit.suggested_spacing,
            "shape": audit.suggested_shape,
            "overrides": suggested_overrides(audit),
        },
        "facts": {name: _counted(_spoken(one, name) for one in _readable(audit)) for name in GEOMETRY},
    }


def _readable(audit: Audit) -> list[Facts]:
    return [one for one in audit.facts if not one.error]


def _spoken(facts: Facts, name: str) -> str:
    value = getattr(facts, name)
    return "x".join(f"{side:.5g}" for side in value) if isinstance(value, tuple) else str(value)


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())
