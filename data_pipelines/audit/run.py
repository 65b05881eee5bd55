"""The audit of a whole data set: every file read once, in parallel, and everything said at once."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from voxlift.data_pipelines.audit.facts import Facts, read_facts
from voxlift.data_pipelines.audit.findings import Case, Finding, all_findings, worst_first
from voxlift.data_pipelines.audit.records import channel_findings, class_findings
from voxlift.data_pipelines.audit.suggest import suggest_preprocess, suggest_shape, suggest_spacing
from voxlift.data_pipelines.tables.manifest import Manifest

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Audit:
    """The outcome of an audit.

    Attributes:
        facts: One per file, in the manifest's order.
        findings: All of them, those that spoil training first.
        suggested_preprocess: Whose intensities suit: mask, ct or mri; None where no file could be read.
        suggested_spacing: mm, ordered (depth, height, width); None where no file could be read.
        suggested_shape: Voxels at that spacing, ordered (depth, height, width), multiples of 8.
    """

    facts: tuple[Facts, ...]
    findings: tuple[Finding, ...]
    suggested_preprocess: str | None
    suggested_spacing: tuple[float, ...] | None
    suggested_shape: tuple[int, ...] | None

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
    workers: int = 2,
    progress: Progress | None = None,
) -> Audit:
    """Return the audit of a data set.

    Args:
        manifest: The records; each of their files is read.
        splits: One per record where they have been assigned; otherwise the table's own column counts.
        time_axis: As for reading.
        prefer: As for reading.
        same_grid: Whether the channels of a record have to share a grid.
        skips_bad: Whether training leaves files out that cannot be read.
        thumbnails: Whether the facts keep three middle slices of every file.
        workers: Files read at a time (threads: decoding releases Python's lock).
        progress: Called after each file with how many are done and how many there are.
    """
    of = [record.split for record in manifest.records] if splits is None else list(splits)
    owners = [
        (record, split) for record, split in zip(manifest.records, of, strict=True) for _ in record.images
    ]
    paths = [path for record in manifest.records for path in record.images]
    read = partial(read_facts, time_axis=time_axis, prefer=prefer, thumbnails=thumbnails)
    facts = _read_all(paths, read, workers, progress)
    cases = [
        Case(one, record.subject, record.label, split)
        for one, (record, split) in zip(facts, owners, strict=True)
    ]
    spacing = suggest_spacing(facts)
    shape = None if spacing is None else suggest_shape(facts, spacing)
    found = [
        *all_findings(cases, manifest, skips_bad=skips_bad),
        *class_findings(manifest, of),
        *(channel_findings(_by_record(facts, manifest)) if same_grid else ()),
    ]
    return Audit(tuple(facts), worst_first(found), suggest_preprocess(facts), spacing, shape)


def check_readable(
    paths: Sequence[str | Path],
    *,
    time_axis: str = "error",
    prefer: str = "sform",
    workers: int = 2,
    progress: Progress | None = None,
) -> dict[Path, str]:
    """Return the files that cannot be read, all of them, each with the reason; empty where all can.

    Every file is decoded to its last voxel, so that a truncated one is found before the first epoch.

    Args:
        paths: Image files and DICOM folders.
        time_axis: As for reading.
        prefer: As for reading.
        workers: Files read at a time.
        progress: Called after each file with how many are done and how many there are.
    """
    read = partial(read_facts, time_axis=time_axis, prefer=prefer)
    facts = _read_all([Path(path) for path in paths], read, workers, progress)
    return {one.path: one.error for one in facts if one.error}


def facts_rows(audit: Audit) -> list[dict[str, str | int | float]]:
    """Return one flat row per file, for a CSV: what the file is, without hash of pictures or thumbnails."""
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


def _by_record(facts: Sequence[Facts], manifest: Manifest) -> list[list[Facts]]:
    """Returns the facts of each record's files, from those of all files in the manifest's order."""
    rest = iter(facts)
    return [[next(rest) for _ in record.images] for record in manifest.records]


def _read_all(
    paths: Sequence[Path], read: Callable[[Path], Facts], workers: int, progress: Progress | None
) -> list[Facts]:
    facts = []
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for done, one in enumerate(pool.map(read, paths), start=1):
            facts.append(one)
            if progress is not None:
                progress(done, len(paths))
    return facts
