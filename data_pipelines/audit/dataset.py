"""Audit a data set: read every file once, in parallel, collect the findings, and suggest settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from voxlift.data_pipelines.audit.confounding import check_confounding
from voxlift.data_pipelines.audit.facts import Facts, read_facts
from voxlift.data_pipelines.audit.findings import (
    Case,
    Finding,
    check_channels,
    check_classes,
    check_consistency,
    check_duplicates,
    check_files,
)
from voxlift.data_pipelines.audit.regions import RegionFacts, check_regions, read_region_facts
from voxlift.data_pipelines.audit.targets import check_targets, class_labels, label_texts
from voxlift.data_pipelines.parallel import Mapper, map_by_threads
from voxlift.data_pipelines.preprocess.auto import AutoPreprocess
from voxlift.data_pipelines.tables.manifest import Manifest, Record
from voxlift.data_pipelines.tables.regions import Region
from voxlift.data_pipelines.volume import VolumeError

SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True, eq=False)
class Audit:
    """The result of an audit.

    Attributes:
        facts: One per file, in the manifest's order.
        findings: All of them, those that spoil training first.
        suggested: The preprocessing that suits the images, as `preprocess=auto` decides it; None where no
            file could be read, or none is asked for.
        regions: Per record the facts of its mask or centre; None without one, or without a readable image.
    """

    facts: tuple[Facts, ...]
    findings: tuple[Finding, ...]
    suggested: AutoPreprocess | None
    regions: tuple[RegionFacts | None, ...] = ()

    @property
    def spoils(self) -> bool:
        """Whether any finding would spoil training."""
        return any(finding.spoils for finding in self.findings)


def audit_manifest(
    manifest: Manifest,
    *,
    splits: Sequence[str] | None = None,
    time_axis: str = "error",
    prefer: str = "sform",
    same_grid: bool = True,
    skips_bad: bool = False,
    thumbnails: bool = False,
    mapper: Mapper | None = None,
    suggest: Callable[[Sequence[Record]], AutoPreprocess] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Return the audit of a data set.

    Args:
        manifest: The records; each of their files is read.
        splits: One per record where they have been assigned; otherwise those of the table.
        time_axis: As in `readers.load_volume`.
        prefer: As in `readers.load_volume`.
        same_grid: Whether the channels of a record must share a grid.
        skips_bad: Whether training leaves out files that cannot be read.
        thumbnails: Whether the facts keep three slices of every file.
        mapper: Reads the files; None: threads of this process, one per CPU.
        suggest: Decides a preprocessing for the records whose files can be read.
        progress: Called with (read, to read) after each file.
    """
    split_of = [record.split for record in manifest.records] if splits is None else list(splits)
    read = partial(read_facts, time_axis=time_axis, prefer=prefer, thumbnails=thumbnails)
    # Records of several lesions in one image share its file, which is read once.
    paths = list(dict.fromkeys(path for record in manifest.records for path in record.images))
    by_path: dict[Path, Facts] = {}
    mapper = map_by_threads() if mapper is None else mapper
    for path, one in zip(paths, mapper(read, paths, lost=_describe_lost_file), strict=True):
        by_path[path] = one
        if progress is not None:
            progress(len(by_path), len(paths))
    regions = _read_regions(manifest.records, by_path, prefer=prefer, mapper=mapper)
    facts = [by_path[path] for record in manifest.records for path in record.images]
    readable = [one for one in manifest.records if not any(by_path[path].error for path in one.images)]
    try:
        suggested = suggest(readable) if suggest and readable else None
    except VolumeError:
        suggested = None
    return Audit(
        facts=tuple(facts),
        findings=_check_all(manifest, facts, regions, split_of, same_grid=same_grid, skips_bad=skips_bad),
        suggested=suggested,
        regions=regions,
    )


def _describe_lost_file(path: Path, problem: str) -> Facts:
    """Return the facts of a file that ended every process which read it."""
    return Facts(path, error=f"{path}: {problem}")


def _read_regions(
    records: Sequence[Record], by_path: Mapping[Path, Facts], *, prefer: str, mapper: Mapper
) -> tuple[RegionFacts | None, ...]:
    """Return of each record the facts of its mask or centre; None without one."""
    # What a worker needs to know of the image: its thumbnails stay here.
    pairs = [
        (record.region, replace(by_path[record.images[0]], thumbnails=()))
        for record in records
        if record.region is not None
    ]
    found = iter(list(mapper(partial(_read_region, prefer=prefer), pairs, lost=_describe_lost_region)))
    return tuple(None if record.region is None else next(found) for record in records)


def _read_region(pair: tuple[Region, Facts], *, prefer: str) -> RegionFacts | None:
    region, facts = pair
    return read_region_facts(region, facts, prefer=prefer)


def _describe_lost_region(pair: tuple[Region, Facts], problem: str) -> RegionFacts:
    return RegionFacts(pair[0], "mask_unreadable", f"{pair[0].mask}: {problem}")


def _check_all(
    manifest: Manifest,
    facts: Sequence[Facts],
    regions: Sequence[RegionFacts | None],
    splits: Sequence[str | None],
    *,
    same_grid: bool,
    skips_bad: bool,
) -> tuple[Finding, ...]:
    """Return all findings, those that spoil training first, then by severity."""
    rest = iter(facts)
    by_record = [[next(rest) for _ in record.images] for record in manifest.records]
    labels, texts = label_texts(manifest)
    cases = _list_cases(manifest, by_record, splits, labels)
    files = list({case.facts.path: case for case in reversed(cases)}.values())[::-1]  # each once
    findings = [
        *check_files(files, skips_bad=skips_bad),
        *check_regions(manifest.records, regions, skips_bad=skips_bad),
        *check_consistency(files),
        *check_duplicates(cases, texts),
        *(
            found
            for own, names in class_labels(manifest)
            for found in check_confounding(_list_cases(manifest, by_record, splits, own), names)
        ),
        *(
            check_classes(manifest, splits)
            if manifest.target == "classes"
            else check_targets(manifest, splits)
        ),
        *(check_channels(by_record) if same_grid else ()),
    ]
    return tuple(sorted(findings, key=_rank))


def _list_cases(
    manifest: Manifest,
    by_record: Sequence[Sequence[Facts]],
    splits: Sequence[str | None],
    labels: Sequence[int | None],
) -> list[Case]:
    """Return a case for each image whose label is known."""
    return [
        Case(one, record.subject, label, split, "" if record.region is None else record.region.name)
        for record, files, split, label in zip(manifest.records, by_record, splits, labels, strict=True)
        if label is not None
        for one in files
    ]


def _rank(finding: Finding) -> tuple[bool, int]:
    return not finding.spoils, SEVERITIES.index(finding.severity)


def facts_rows(audit: Audit) -> list[dict[str, str | int | float]]:
    """Return one flat row per file, for a CSV file: all facts except affine, notes and thumbnails."""
    return [
        {
            "path": str(one.path),
            "error": one.error,
            "kind": one.kind,
            "dtype": one.dtype,
            "shape": "x".join(map(str, one.shape)),
            "channels": one.channels,
            "spacing": "x".join(f"{value:.5g}" for value in one.spacing),
            "axcodes": one.axcodes,
            "tilt_degrees": round(one.tilt_degrees, 3),
            "sheared": int(one.is_sheared),
            "forms_off_mm": "" if one.forms_off_mm is None else one.forms_off_mm,
            "nonfinite": one.nonfinite,
            "minimum": one.minimum,
            "maximum": one.maximum,
            "mean": one.mean,
            "voxel_hash": one.voxel_hash,
        }
        for one in audit.facts
    ]
