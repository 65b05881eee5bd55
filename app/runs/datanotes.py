"""What a run's page says of its data: the findings of an audit where there is one, else what training saw."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from voxlift.app.files import read_json, read_rows
from voxlift.app.runs.folder import RunFolder
from voxlift.app.settings import DataSettings, SettingsError, TrainSettings
from voxlift.app.subjects.auditing import JSON, data_name

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
