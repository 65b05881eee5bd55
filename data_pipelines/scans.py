"""Find scans without labels, for a trained model to score: a file, all below a folder, or a table's rows.

An entry that cannot be scored stays in the list, with its problem.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from voxlift.data_pipelines.errors import ManifestError, list_some
from voxlift.data_pipelines.files import (
    DICOM_DIRECTORY,
    IMAGE_SUFFIXES,
    FolderWalk,
    find_kind,
    has_image_name,
    is_absent,
)
from voxlift.data_pipelines.readers.recognise import is_dicom_image
from voxlift.data_pipelines.tables.reader import read_table, require_columns
from voxlift.data_pipelines.tables.regions import NO_REGIONS, Region, RegionColumns, name_mask
from voxlift.data_pipelines.tables.rows import Row, rows_of_table

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".xlsx")


@dataclass(frozen=True)
class Scan:
    """One volume to score.

    Args:
        subject: The subject's name; the path below the folder where no name is given.
        images: Absolute paths, one per channel; a directory contains a DICOM series.
        problem: Why it cannot be scored, "" where no problem is known.
        region: Its mask or centre; None where the model needs none.
        cells: Text of the columns that the model joins to the image, in their order; empty: none.
    """

    subject: str
    images: tuple[Path, ...]
    problem: str = ""
    region: Region | None = None
    cells: tuple[str, ...] = ()


def find_scans(
    source: str | Path,
    *,
    image_columns: Sequence[str],
    subject_column: str | None = None,
    root: str | Path | None = None,
    regions: RegionColumns = NO_REGIONS,
    joined_columns: Sequence[str] = (),
) -> tuple[Scan, ...]:
    """Return the scans of a file, a folder or a table, in a fixed order.

    Args:
        source: An image file, a DICOM series' folder, a folder with scans at any depth, or a table. With
            several image columns a folder contains one folder per subject, and a file's channel is recognised
            by its name.
        image_columns: One per channel: the table's columns (or patterns over columns); in a folder, the
            words that the names of the channel's files contain.
        subject_column: The table's column with the subject; by default the first image names it.
        root: Folder that a table's relative paths start from; by default the table's own.
        regions: The table's columns of masks or centres, which the model needs.
        joined_columns: The table's columns that the model joins to the image.

    Raises:
        ManifestError: There is nothing at `source`, nothing to score, or no table though masks, centres or
            columns are needed; or the table lacks a column.
    """
    path, columns = Path(source).expanduser().absolute(), tuple(image_columns)
    if is_absent(path):
        raise ManifestError(f"{source}: expected an image, a folder or a table, but the path does not exist.")
    is_table = find_kind(path).name != "folder" and path.name.lower().endswith(TABLE_SUFFIXES)
    if regions.needed and not is_table:
        raise ManifestError(
            f"{source}: this model needs a {'mask' if regions.mask else 'centre'} for each scan. Give a "
            f"table with the columns {', '.join([*columns, *regions.needed])}."
        )
    if joined_columns and not is_table:
        raise ManifestError(
            f"{source}: this model needs {list_some(joined_columns)} of each subject beside the image. Give "
            f"a table with the columns {', '.join([*columns, *joined_columns])}; a cell may be empty."
        )
    if find_kind(path).name == "folder":
        scans = _scans_of_folder(path, columns)
    elif is_table:
        base = path.parent if root is None else Path(root).expanduser().absolute()
        scans = _scans_of_table(path, columns, subject_column, base, regions=regions, joined=joined_columns)
    elif len(columns) > 1:
        raise ManifestError(
            f"{source}: each volume needs {len(columns)} images ({', '.join(columns)}), but one file was "
            "given. Give a table with these columns, or a folder per subject."
        )
    else:
        scans = [Scan(path.name, (path,))]
    if not scans:
        raise ManifestError(
            f"{source}: no scans found. Expected files ending in {', '.join(IMAGE_SUFFIXES)} at any depth, "
            "or folders of DICOM files; a table needs at least one row."
        )
    return tuple(scans)


def _scans_of_table(
    path: Path,
    image_columns: tuple[str, ...],
    subject_column: str | None,
    root: Path,
    *,
    regions: RegionColumns,
    joined: Sequence[str],
) -> list[Scan]:
    table = read_table(path)
    require_columns(table, joined, setting="the run, which was trained with model.columns")
    cells_of = dict(zip(table.lines, table.rows, strict=True))
    rows = rows_of_table(
        table,
        root=root,
        image_columns=image_columns,
        label_column=None,
        subject_column=subject_column,
        split_column=None,
        regions=regions,
    )
    counts = Counter(row.images for row in rows)
    return [
        Scan(
            row.subject or f"row {row.line}",
            row.images or (),
            _find_problem(row, path),
            name_mask(row.region, is_shared=counts[row.images] > 1),
            tuple(table.with_decimal_point(cells_of[row.line][name]) for name in joined),
        )
        for row in rows
    ]


def _find_problem(row: Row, path: Path) -> str:
    """Return why a row cannot be scored, "" where it can."""
    if not row.images:
        return f"row {row.line} of {path.name} names no image"
    return f"row {row.line} of {path.name}: {row.region_problem}" if row.region_problem else ""


def _scans_of_folder(folder: Path, image_columns: tuple[str, ...]) -> list[Scan]:
    if len(image_columns) < 2:
        return [
            Scan(image.name if image == folder else image.relative_to(folder).as_posix(), (image,))
            for image in find_images(folder)
        ]
    walk = FolderWalk(folder)
    entries = walk.entries(folder)
    subfolders = [path for path in entries if find_kind(path).name == "folder"]
    is_one_subject = any(has_image_name(path) for path in entries if path not in subfolders) or not subfolders
    if is_one_subject:
        return _scans_of_subject(folder, image_columns, FolderWalk(folder))
    return [scan for subject in subfolders for scan in _scans_of_subject(subject, image_columns, walk)]


def find_images(folder: Path, walk: FolderWalk | None = None) -> Iterator[Path]:
    """Yield every image at any depth, sorted: files of known formats, and folders that contain DICOM files.

    A pair of header and data file is named by its header, and so counted once. An entry with an image's name
    that cannot be read (a broken link, a pipe) is yielded too, so that it is reported.

    Args:
        folder: The folder.
        walk: The walk that `folder` is a part of; by default it starts here.
    """
    walk = walk or FolderWalk(folder)
    entries = walk.entries(folder)
    kinds = {path: find_kind(path).name for path in entries}
    images = [path for path in entries if has_image_name(path) and kinds[path] != "folder"]
    yield from images
    others = [path for path in entries if kinds[path] == "file" and path not in images]
    if any(is_dicom_image(path) for path in others if path.name.upper() != DICOM_DIRECTORY):
        yield folder
    for path in entries:
        if kinds[path] == "folder":
            yield from find_images(path, walk)


def _scans_of_subject(folder: Path, image_columns: tuple[str, ...], walk: FolderWalk) -> list[Scan]:
    """Return one scan; or one for each session folder, where each contains every channel once."""
    images = list(find_images(folder, walk))
    chosen, problem = _assign_channels(images, image_columns)
    if not problem:
        return [Scan(folder.name, chosen)]
    candidates = [image for image in images if any(_is_channel(image, column) for column in image_columns)]
    by_folder: dict[Path, list[Path]] = {}
    for image in candidates:
        by_folder.setdefault(image.parent, []).append(image)
    sessions = [_assign_channels(session, image_columns) for session in by_folder.values()]
    if len(sessions) < 2 or any(missing for _, missing in sessions):
        return [Scan(folder.name, tuple(images), f"{folder.name}: {problem}")]
    return [Scan(folder.name, session) for session, _ in sessions]


def _assign_channels(images: Sequence[Path], image_columns: tuple[str, ...]) -> tuple[tuple[Path, ...], str]:
    """Return the image of each column, or why it cannot be determined."""
    chosen: list[Path] = []
    for column in image_columns:
        matching = [image for image in images if _is_channel(image, column)]
        if len(matching) != 1:
            found = list_some([image.name for image in matching]) if matching else "none"
            return (), f"expected one image of {column}, by its name; found {found}"
        chosen += matching
    return tuple(chosen), ""


def _is_channel(image: Path, column: str) -> bool:
    """Return whether a file's name names a channel, such as `sub-1_T1.nii.gz` that of the column `t1`."""
    if "{" in column:  # a pattern over columns: only its last part is compared, with any cells
        return fnmatch(image.name, re.sub(r"\{[^{}]*\}", "*", column.rpartition("/")[2]))
    words = re.split(r"[^a-z0-9]+", image.name.lower())
    wanted = [word for word in re.split(r"[^a-z0-9]+", column.lower()) if word]
    return any(words[at : at + len(wanted)] == wanted for at in range(len(words)))
