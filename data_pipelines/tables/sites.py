"""Splits that keep a site together, or hold one site out: a site is the value of a column of the table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from voxlift.data_pipelines.errors import ManifestError, list_some
from voxlift.data_pipelines.tables.manifest import Manifest
from voxlift.data_pipelines.tables.reader import is_missing, read_table
from voxlift.data_pipelines.tables.split_checks import CHECKS
from voxlift.data_pipelines.tables.splits import assign_splits


def read_sites(manifest: Manifest, column: str, *, setting: str) -> tuple[str, ...]:
    """Return the site of each record.

    Args:
        manifest: The records, of a table.
        column: Of the sites.
        setting: That names the column, for the message.

    Raises:
        ManifestError: There is no such column, a cell is empty, or a subject is at two sites.
    """
    if manifest.source.is_dir():
        raise ManifestError(f"{setting}={column}: {manifest.source} is a folder per class, without columns.")
    table = read_table(manifest.source)
    if column not in table.columns:
        raise ManifestError(
            f"{setting}={column}: expected a column of {manifest.source}; it has {list_some(table.columns)}."
        )
    cell_of = dict(zip(table.lines, (row[column].strip() for row in table.rows), strict=True))
    sites = tuple(cell_of[record.row] for record in manifest.records)
    empty = [
        str(record.row) for record, site in zip(manifest.records, sites, strict=True) if is_missing(site)
    ]
    if empty:
        raise ManifestError(
            f"{setting}={column}: {len(empty)} used rows of {manifest.source} have no site: "
            f"{list_some(empty)}. Fill the cells, for example with a site of their own."
        )
    _refuse_travellers(manifest, sites, f"{setting}={column}")
    return sites


def _refuse_travellers(manifest: Manifest, sites: Sequence[str], setting: str) -> None:
    found = defaultdict[str, set[str]](set)
    for record, site in zip(manifest.records, sites, strict=True):
        found[record.subject].add(site)
    several = [f"{name} ({', '.join(sorted(own))})" for name, own in found.items() if len(own) > 1]
    if several:
        raise ManifestError(
            f"{setting}: {len(several)} subjects are at two sites, so these cannot be kept apart: "
            f"{list_some(several)}. Give each subject one site, or leave the others out."
        )


def group_by_site(manifest: Manifest, sites: Sequence[str]) -> Manifest:
    """Return the records with their site in place of their subject, so that splits keep sites together."""
    pairs = zip(manifest.records, sites, strict=True)
    return replace(manifest, records=tuple(replace(record, subject=site) for record, site in pairs))


def leave_site_out(
    manifest: Manifest, sites: Sequence[str], *, fold: int, val: float, seed: int, by_site: bool = False
) -> tuple[str, ...]:
    """Return splits with one site as the test, and validation subjects from the other sites.

    Args:
        manifest: The records, without splits of their own.
        sites: One per record.
        fold: Index of the test site, in alphabetical order.
        val: Fraction of all subjects for validation.
        seed: Of the draw of validation subjects.
        by_site: Whether validation consists of whole sites, too.

    Raises:
        ManifestError: There is no such fold, or a split that no model could be trained or scored on.
    """
    names = sorted(set(sites))
    if len(names) < 2 or fold >= len(names):
        listed = ", ".join(f"{index} {name}" for index, name in enumerate(names))
        raise ManifestError(f"splits.fold={fold}: expected the number of a site among {listed}.")
    rest = [index for index, site in enumerate(sites) if site != names[fold]]
    own = replace(manifest, records=tuple(manifest.records[index] for index in rest))
    subjects = [len({record.subject for record in part.records}) for part in (manifest, own)]
    fraction = min(val * subjects[0] / subjects[1], 0.9)
    part = group_by_site(own, [sites[index] for index in rest]) if by_site else own
    inner = assign_splits(part, val=fraction, test=0.0, seed=seed)
    chosen: Mapping[int, str] = dict(zip(rest, inner, strict=True))
    splits = tuple(chosen.get(index, "test") for index in range(len(sites)))
    CHECKS[manifest.target][1](manifest, splits)
    return splits
