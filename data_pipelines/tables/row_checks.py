"""Refuse or count the rows that cannot be used: incomplete, contradictory, listed twice, without a file."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from voxlift.data_pipelines.errors import ManifestError, list_some
from voxlift.data_pipelines.files import IMAGE_SUFFIXES, find_real_path, is_absent, is_file
from voxlift.data_pipelines.tables.reader import is_missing
from voxlift.data_pipelines.tables.regions import BAD_CENTRE, Region
from voxlift.data_pipelines.tables.rows import SPLITS, Row, find_split

Label = tuple[int, tuple[float, ...]]  # class index and targets of a record; nan is always `math.nan`


def drop_incomplete(rows: Sequence[Row]) -> tuple[list[Row], Counter[str]]:
    """Return the rows that name an image and (where there is a split column) a split; count the others."""
    left_out = Counter[str]()
    kept = []
    for row in rows:
        if row.images is None:
            left_out["image missing"] += 1
        elif row.split is not None and is_missing(row.split):
            left_out["split missing"] += 1
        elif row.region_problem and row.region_problem != BAD_CENTRE:
            left_out[row.region_problem] += 1
        else:
            kept.append(row)
    return kept, left_out


def check_cells(kept: Iterable[tuple[Row, Label]], source: Path) -> None:
    """Raise if rows name no subject, an unknown split, or a centre that is no number.

    Raises:
        ManifestError: They do; all of one kind together.
    """
    unknown = [f"row {row.line}: {row.split!r}" for row, _ in kept if row.split and not find_split(row.split)]
    nameless = [f"row {row.line}" for row, _ in kept if not row.subject]
    unplaced = [f"row {row.line}" for row, _ in kept if row.region_problem]
    if unplaced:
        raise ManifestError(
            f"{source}: expected numbers (mm) in the columns of data.centre_columns; found others in "
            f"{list_some(unplaced)}."
        )
    if unknown:
        raise ManifestError(
            f"{source}: expected a split among {', '.join(SPLITS)}, received {list_some(unknown)}. Write one "
            "of these in the column of data.split_column, or remove that key to have the splits drawn."
        )
    if nameless:
        raise ManifestError(
            f"{source} names no subject in {list_some(nameless)}. Fill in the subject column."
        )


def drop_duplicates(kept: Sequence[tuple[Row, Label]], source: Path) -> list[tuple[Row, Label]]:
    """Return each image once, or each mask or centre in it.

    Raises:
        ManifestError: Rows of one image contradict each other.
    """
    by_images: dict[tuple[Path, ...], dict[object, list[tuple[Row, Label]]]] = defaultdict(dict)
    for row, label in kept:
        regions = by_images[tuple(map(find_real_path, row.images or ()))]
        regions.setdefault(_region_key(row.region), []).append((row, label))
    problems = [
        problem
        for images, regions in by_images.items()
        for problem in _contradictions(images, list(regions.values()))
    ]
    if problems:
        raise ManifestError(f"{source} contradicts itself: {list_some(problems)}. Keep one row per image.")
    first = [same[0] for regions in by_images.values() for same in regions.values()]
    return sorted(first, key=lambda pair: pair[0].line)


def _region_key(region: Region | None) -> object:
    """Return what is equal for two rows of one mask or centre."""
    if region is None:
        return None
    return region.centre if region.mask is None else find_real_path(region.mask)


def _contradictions(images: tuple[Path, ...], regions: Sequence[Sequence[tuple[Row, Label]]]) -> list[str]:
    """Return what the rows of one image say differently; lesions of it may differ in their label only."""
    rows = [row for same in regions for row, _ in same]
    groups = [
        ("label", [row for row, _ in same]) for same in regions if len({label for _, label in same}) > 1
    ]
    values = [
        (name, found, {", ".join(row.findings) or row.label for row in found}) for name, found in groups
    ]
    values += [
        ("subject", rows, {row.subject for row in rows}),
        ("split", rows, {str(row.split) for row in rows}),
    ]
    return [
        f"rows {' and '.join(str(row.line) for row in found[:2])} give {images[0]} two {name}s "
        f"({list_some(sorted(texts))})"
        for name, found, texts in values
        if len(texts) > 1
    ]


def check_files(rows: Iterable[Row], source: Path) -> None:
    """Raise if rows name images or masks that do not exist.

    Raises:
        ManifestError: They do.
    """
    missing = [(row.line, path) for row in rows for path in _files_of(row) if is_absent(path)]
    listed = [f"row {line}: {path}{_suffix_hint(path)}" for line, path in missing]
    if listed:
        images = "images that do" if len(listed) > 1 else "image that does"
        raise ManifestError(
            f"{source} names {len(listed)} {images} not exist: {list_some(listed)}. "
            "Relative paths start from data.root, by default the folder of the table. "
            "To leave these rows out, set data.on_bad_file=skip."
        )


def _files_of(row: Row) -> tuple[Path, ...]:
    mask = None if row.region is None else row.region.mask
    return (*(row.images or ()), *(() if mask is None else (mask,)))


def _suffix_hint(path: Path) -> str:
    """Return a hint at a file of that name with a suffix, where a table leaves the suffix out."""
    found = [path.name + suffix for suffix in IMAGE_SUFFIXES if is_file(path.parent / f"{path.name}{suffix}")]
    return f" (there is {found[0]})" if found else ""
