"""Group the findings of a data audit, and name what to do about each kind."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from voxlift.app.config.overrides import format_override
from voxlift.app.data.sources import auto_overrides, quote_for_shell
from voxlift.app.evaluation.table_one import TableOneRow
from voxlift.data_pipelines.audit import Audit, Facts, Finding
from voxlift.data_pipelines.audit.regions import RegionFacts
from voxlift.data_pipelines.preprocess.auto import AutoPreprocess
from voxlift.data_pipelines.tables.manifest import Manifest, Record

MAX_NAMES = 3  # files named in one sentence
MAX_LENGTH = 160  # characters of a finding in the terminal; the page and audit.json have all of it
ADVICE = MappingProxyType(
    {
        "table_refused": "Training refuses this table until it is fixed; the audit read the files anyway.",
        "similar_subjects": "Write one name per person, or check that they are different persons.",
        "shared_folders": "Check whether one name in several classes is one person.",
        "files_of_one_subject": "Set data.subject_column, or use a folder per subject.",
        "spanning_cells": "The table was read as described.",
        "other_sheets": "The table was read as described.",
        "unreadable": "Fix or remove these files, or leave them out with data.on_bad_file=skip.",
        "absent": "Relative paths start from data.root, by default the folder of the table; "
        "data.on_bad_file=skip leaves these rows out.",
        "nonfinite": "They are filled with the padding value; preprocess.nonfinite=error refuses them.",
        "no_finite_voxel": "Replace the file, or leave it out with data.on_bad_file=skip.",
        "constant": "Remove the row: a constant image has no information.",
        "single_slice": "A volume has several slices: stack those of a scan into one file.",
        "empty_mask": "Correct for a subject without anything to mark; otherwise fix the file.",
        "mask_absent": "Relative paths start from data.root, by default the folder of the table; "
        "data.on_bad_file=skip leaves these rows out.",
        "mask_unreadable": "Fix or remove these masks, or leave the rows out with data.on_bad_file=skip.",
        "mask_empty": "Draw the mask, or leave the rows out with data.on_bad_file=skip.",
        "mask_off_grid": "Save the mask with the affine of its image; data.on_bad_file=skip leaves these "
        "rows out.",
        "centre_outside": "Check the units (world mm) and data.centre_space; data.on_bad_file=skip leaves "
        "these rows out.",
        "mask_resampled": "They are placed by their affine, and resampled by nearest neighbour.",
        "mask_parts": "All parts count; preprocess.mask_components=largest takes the largest.",
        "channels_off_grid": "Register them, or set preprocess.same_grid=false to resample them onto the "
        "first channel.",
        "similar_classes": "If they mean the same, use one spelling in the table.",
        "small_class": "Find more subjects, ask for fewer splits, or leave the class out of data.classes.",
        "numeric_label": "Predict it with task=number, or divide it into classes: 'data.label_bins=[EDGE]' "
        "'data.classes=[BELOW,FROM_EDGE]'.",
        "untrained_class": "Move subjects of it into training, or leave it out of data.classes.",
        "constant_target": "Choose another column: a network learns nothing from a constant.",
        "unknown_cells": "They count for nothing in loss and metrics of this finding.",
        "target_range": "A network extrapolates poorly: draw the splits, or state this range.",
        "target_distribution": "The splits should resemble each other.",
        "mixed_channels": "A network takes a fixed number of channels: see data.time_axis.",
        "subject_in_two_splits": "Put all volumes of a subject into one split; training refuses them.",
        "two_labels": "Decide on one label per file.",
        "same_voxels": "Remove copies, or give them one subject and label; no two splits may share them.",
        "confounded": "A network could score well without using the anatomy: resample to one spacing and "
        "shape, and match the scanners between classes. voxlift-study study=shortcuts measures how far it "
        "gets without the anatomy.",
        "forms_conflict": "Look at the thumbnails and choose preprocess.prefer=sform or qform.",
        "header": "The file was read as described.",
        "sheared": "Resampling to a rectangular grid corrects this.",
        "mixed_axcodes": "All files are reoriented to RAS before training.",
        "mixed_dtype": "All voxels are converted to floating point before training.",
        "spacing_outlier": "Resample to one spacing, as suggested, and look at these files.",
        "shape_outlier": "Crop or pad to one shape, as suggested, and look at these files.",
        "several_labels": "Intended where scans of one person are compared, as before and after a treatment.",
        "rows_left_out": "Check the label column and data.classes if this is not intended.",
    }
)


@dataclass(frozen=True, eq=False)
class DatasetAudit:
    """A data set and the findings of its audit.

    Attributes:
        name: Name of the data set, for headings and folders.
        manifest: The audited rows.
        audit: Facts per file, and all findings, those about the table included.
        thumbnails: Number of files to show on the page.
        table_one: The table of subjects.
        flow: Rows read, left out and used.
        grids: The suggestion for each `preprocess.budget`.
        costs: Memory and seconds an epoch by model and budget, where they were measured.
    """

    name: str
    manifest: Manifest
    audit: Audit
    thumbnails: int
    table_one: Sequence[TableOneRow] = ()
    flow: Sequence[Mapping[str, str | int]] = ()
    grids: Mapping[int, AutoPreprocess] = field(default_factory=dict)
    costs: Sequence[Mapping[str, Any]] = ()

    @property
    def owners(self) -> list[Record]:
        """The record of each file, in the order of the facts."""
        return [record for record in self.manifest.records for _ in record.images]

    @property
    def owned_regions(self) -> list[RegionFacts | None]:
        """The facts of the mask or centre that belongs to each file, in the order of the facts."""
        pairs = zip(self.manifest.records, self.audit.regions, strict=True)
        return [facts for record, facts in pairs for _ in record.images]


@dataclass(frozen=True)
class FindingGroup:
    """All findings of one kind and severity.

    Attributes:
        kind: As in `Finding`.
        severity: As in `Finding`.
        spoils: Whether training on the data as it is would fail or mislead.
        findings: All of them.
    """

    kind: str
    severity: str
    spoils: bool
    findings: tuple[Finding, ...]

    @property
    def name(self) -> str:
        """The kind in words."""
        return self.kind.replace("_", " ")

    @property
    def advice(self) -> str:
        """What to do about it; empty for a kind that needs nothing."""
        return ADVICE.get(self.kind, "")

    @property
    def files(self) -> int:
        """Number of files or subjects concerned, at least one per finding."""
        named = {place for finding in self.findings for place in finding.where}
        return max(len(named), len(self.findings))


def group_findings(findings: Sequence[Finding]) -> list[FindingGroup]:
    """Return the findings grouped by kind and severity, in the order of the first of each."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.kind, finding.severity), []).append(finding)
    return [
        FindingGroup(kind, severity, any(one.spoils for one in same), tuple(same))
        for (kind, severity), same in groups.items()
    ]


def summarise_audit(found: DatasetAudit) -> str:
    """Return the result of the audit in one sentence."""
    files, readable = len(found.audit.facts), sum(not one.error for one in found.audit.facts)
    count = f"all {files} files" if readable == files else f"{readable} of {files} files"
    groups = group_findings(found.audit.findings)
    spoiling = sum(group.spoils for group in groups)
    if spoiling:
        kinds = "1 kind of finding" if spoiling == 1 else f"{spoiling} kinds of findings"
        return f"{kinds} would spoil training; {count} could be read."
    if groups:
        return f"No finding would spoil training, but check those listed; {count} could be read."
    return f"Nothing was found; {count} could be read."


def describe_positive(manifest: Manifest) -> str:
    """Return which of two classes sensitivity and PPV are about; empty for other tasks."""
    if manifest.target != "classes" or len(manifest.classes) != 2:
        return ""
    first, second = manifest.classes
    other = quote_for_shell(format_override("data.classes", [second, first]))
    return f"The positive class, of sensitivity and PPV, is {second}; {other} makes it {first}."


def suggested_overrides(audit: Audit) -> list[str]:
    """Return the suggestions as training settings, quoted for a shell; none if no file was readable."""
    suggested = audit.suggested
    return [] if suggested is None else [quote_for_shell(one) for one in auto_overrides(suggested)]


def common_folder(facts: Sequence[Facts]) -> str:
    """Return the folder that contains all readable files, with a final slash; empty if there is none."""
    folders = {str(one.path.parent) for one in facts if not one.error}
    shared = os.path.commonpath(folders) if folders else ""
    return f"{shared}{os.sep}" if len(shared) > 1 else ""


def format_finding(finding: Finding, *, below: str = "") -> str:
    """Return the finding in one sentence with its files, whose paths are relative to the folder `below`."""
    text = finding.message
    names = () if any(place in text for place in finding.where) else finding.where
    if len(names) == 1:
        text = f"{names[0]}: {text}"
    elif names:
        rest = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        text = f"{text}: {', '.join(names[:MAX_NAMES])}{rest}"
    return text.replace(below, "") if below else text


def truncate_line(text: str, *, length: int = MAX_LENGTH) -> str:
    """Return the text in one line, cut at its end where it is too long.

    >>> truncate_line("a long sentence", length=8)
    'a long \N{HORIZONTAL ELLIPSIS}'
    """
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}\N{HORIZONTAL ELLIPSIS}"
