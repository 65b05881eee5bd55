"""A data set and what its audit found: the value that the page and the terminal's table show."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from voxlift.app.progress import build_console
from voxlift.data_pipelines.audit import Audit, Facts, Finding
from voxlift.data_pipelines.tables.manifest import Manifest, Record


@dataclass(frozen=True, eq=False)
class AuditedData:
    """A data set and what its audit found.

    Attributes:
        name: What the data set is called, for headings and folders.
        manifest: The rows that were audited.
        audit: Facts per file, and all findings, those about the table included.
        thumbnails: How many files are to be shown on the page.
    """

    name: str
    manifest: Manifest
    audit: Audit
    thumbnails: int

    @property
    def owners(self) -> list[Record]:
        """The record of each file, in the order of the facts."""
        return [record for record in self.manifest.records for _ in record.images]


def suggested_overrides(audit: Audit) -> list[str]:
    """The suggestions as settings of a training, quoted for a shell; none where no file could be read."""
    suggested = {"spacing": audit.suggested_spacing, "shape": audit.suggested_shape}
    kind = [f"preprocess={audit.suggested_preprocess}"] if audit.suggested_preprocess else []
    return kind + [
        f"'preprocess.{key}=[{','.join(f'{value:g}' for value in values)}]'"
        for key, values in suggested.items()
        if values is not None
    ]


EXAMPLES = 3
LONGEST = 160  # characters of an example in the terminal; the page and audit.json have all of it
ALONE = 600  # of a finding that is the only one of its kind, whose way out stands at its end
TOLD = ("absent", "unreadable", "similar_classes", "small_class")  # whose way out the terminal names, too
COLOURS = MappingProxyType({"error": "bold red", "warning": "yellow", "note": "dim"})
ADVICE = MappingProxyType(
    {
        "table_refused": "Training stops here until this is mended; the rest was audited all the same.",
        "unreadable": "Mend or remove these files, or leave them out with data.on_bad_file=skip.",
        "absent": "Relative paths start from data.root, by default the folder of the table; "
        "data.on_bad_file=skip leaves these rows out.",
        "nonfinite": "They are filled with the padding value; preprocess.nonfinite=error refuses them.",
        "no_finite_voxel": "Nothing is left to train on: remove it.",
        "constant": "A blank image teaches nothing: remove it.",
        "empty_mask": "Right for a subject who has nothing to mark; any other file wants mending.",
        "channels_off_grid": "Register them, or set preprocess.same_grid=false to resample them onto the "
        "first channel.",
        "similar_classes": "If they mean the same, write them the same in the table.",
        "small_class": "Find more subjects, ask for fewer splits, or leave the class out of data.classes.",
        "numeric_label": "Cut it into classes: 'data.label_bins=[EDGE]' 'data.classes=[BELOW,FROM_IT_ON]'.",
        "untrained_class": "Move subjects of it into training, or leave it out of data.classes.",
        "mixed_channels": "A network takes one number of channels: see data.time_axis.",
        "subject_in_two_splits": "Put all volumes of a subject into one split; training refuses them.",
        "two_labels": "Decide on one label per file.",
        "same_voxels": "Remove copies, or give them one subject and label; no two splits may share them.",
        "confounded": "A network could score well without a look at the anatomy: resample to one spacing and "
        "shape, and match the scanners between classes.",
        "forms_conflict": "Look at the thumbnails and choose preprocess.prefer=sform or qform.",
        "header": "The file was read as described.",
        "sheared": "Resampling to a right-angled grid sets it straight.",
        "mixed_axcodes": "All files are brought to RAS before training.",
        "mixed_dtype": "All voxels become floating point before training.",
        "spacing_outlier": "Resample to one spacing, as suggested, and look at these files.",
        "shape_outlier": "Crop or pad to one shape, as suggested, and look at these files.",
        "rows_left_out": "Check the label column and data.classes if this is not meant.",
    }
)


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
        """The kind in plain words."""
        return self.kind.replace("_", " ")

    @property
    def advice(self) -> str:
        """What to do about it; empty for a kind that needs nothing."""
        return ADVICE.get(self.kind, "")

    @property
    def files(self) -> int:
        """How many files or subjects it is about, at least one per finding."""
        named = {place for finding in self.findings for place in finding.where}
        return max(len(named), len(self.findings))


def group_findings(findings: Sequence[Finding]) -> list[FindingGroup]:
    """Findings of a kind together, in the order in which their first comes."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.kind, finding.severity), []).append(finding)
    return [
        FindingGroup(kind, severity, any(one.spoils for one in same), tuple(same))
        for (kind, severity), same in groups.items()
    ]


def shared_folder(facts: Sequence[Facts]) -> str:
    """The folder that all readable files lie below, with a slash: what a name can do without, or nothing."""
    folders = {str(one.path.parent) for one in facts if not one.error}
    shared = os.path.commonpath(folders) if folders else ""
    return f"{shared}{os.sep}" if len(shared) > 1 else ""


def sentence(finding: Finding, *, below: str = "") -> str:
    """The finding in one sentence that names where, paths relative to the folder `below`."""
    text = finding.message
    names = () if any(place in text for place in finding.where) else finding.where
    if len(names) == 1:
        text = f"{names[0]}: {text}"
    elif names:
        rest = f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else ""
        text = f"{text}: {', '.join(names[:EXAMPLES])}{rest}"
    return text.replace(below, "") if below else text


def shorten(text: str, *, longest: int = LONGEST) -> str:
    """The text in one line, cut at its end where it is too long.

    >>> shorten("a long sentence", longest=8)
    'a long \N{HORIZONTAL ELLIPSIS}'
    """
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"


def verdict(found: AuditedData) -> str:
    """The audit in one or two sentences."""
    files, readable = len(found.audit.facts), sum(not one.error for one in found.audit.facts)
    read = (
        f"all {files} files could be read"
        if readable == files
        else f"{readable} of {files} files could be read"
    )
    groups = group_findings(found.audit.findings)
    spoiling = sum(group.spoils for group in groups)
    if spoiling:
        kinds = "1 kind of finding" if spoiling == 1 else f"{spoiling} kinds of findings"
        return f"{kinds} would spoil training; {read}."
    if groups:
        return f"Nothing here would spoil training; {read}, and there is something to look at."
    return f"Nothing was found; {read}."


def print_audit(found: AuditedData, *, console: Console | None = None) -> None:
    """Print one table of all findings, the verdict, and the suggested settings."""
    target = console or build_console()
    groups = group_findings(found.audit.findings)
    if groups:
        target.print(_table(groups, below=shared_folder(found.audit.facts)))
    target.print(Text(verdict(found), style="bold"))
    for group in groups:
        if group.spoils and group.kind in TOLD:
            target.print(Text(f"  {group.name}: {group.advice}"), soft_wrap=True)
    overrides = suggested_overrides(found.audit)
    if overrides:
        target.print("Suggested for training (depth, height, width):")
        target.print(Text(f"  {' '.join(overrides)}"), soft_wrap=True)


def _table(groups: Sequence[FindingGroup], *, below: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("finding", overflow="fold")
    table.add_column("severity", no_wrap=True)
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("first examples", overflow="fold")
    for group in groups:
        table.add_row(
            group.name,
            Text(group.severity, style=COLOURS[group.severity]),
            str(group.files),
            Text("\n".join(_examples(group, below=below))),
        )
    return table


def _examples(group: FindingGroup, *, below: str) -> list[str]:
    longest = ALONE if len(group.findings) == 1 else LONGEST
    shown = [shorten(sentence(one, below=below), longest=longest) for one in group.findings[:EXAMPLES]]
    rest = len(group.findings) - EXAMPLES
    return [*shown, f"and {rest} more"] if rest > 0 else shown
