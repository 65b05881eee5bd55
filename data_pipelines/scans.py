"""Scans without labels, for a trained model to score: a file, all below a folder, or a table's rows.

Nothing is refused for one bad entry: what cannot be scored stays in the list, with its reason.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from voxlift.data_pipelines.tables.reader import ManifestError, list_some, read_table
from voxlift.data_pipelines.tables.rows import SUFFIXES, rows_of_table

TABLES = (".csv", ".tsv", ".txt")
DICOM_MARK = (128, b"DICM")  # offset and bytes of a DICOM file's preamble


@dataclass(frozen=True)
class Scan:
    """One volume to score.

    Args:
        subject: Whose it is; the path below the folder where nothing names it.
        images: Absolute paths, one per channel; a directory holds a DICOM series.
        problem: Why it cannot be scored, "" where nothing is known against it.
    """

    subject: str
    images: tuple[Path, ...]
    problem: str = ""


def find_scans(
    source: str | Path,
    *,
    image_columns: Sequence[str],
    subject_column: str | None = None,
    root: str | Path | None = None,
) -> tuple[Scan, ...]:
    """Returns the scans of a file, a folder or a table, in a fixed order.

    Args:
        source: An image file, a DICOM series' folder, a folder with scans at any depth, or a table. With
            several image columns a folder holds one folder per subject, and a file's name tells its channel.
        image_columns: One per channel: the table's columns (or patterns over columns), which also tell the
            channels of files in a folder.
        subject_column: The table's column with the subject; by default the first image names it.
        root: Folder that a table's relative paths start from; by default the table's own.

    Raises:
        ManifestError: There is nothing at `source`, or nothing to score.
    """
    place = Path(source).expanduser().absolute()
    if not place.exists():
        raise ManifestError(f"{source}: expected an image, a folder or a table; there is nothing there.")
    if place.is_dir():
        scans = _scans_of_folder(place, tuple(image_columns))
    elif place.name.lower().endswith(TABLES):
        base = Path(root).expanduser().absolute() if root is not None else place.parent
        scans = _scans_of_table(place, tuple(image_columns), subject_column, base)
    elif len(image_columns) > 1:
        raise ManifestError(
            f"{source}: each volume needs {len(image_columns)} images ({', '.join(image_columns)}), but "
            "one file was given. Give a table with these columns, or a folder per subject."
        )
    else:
        scans = [Scan(place.name, (place,))]
    if not scans:
        raise ManifestError(
            f"{source}: no scans found. Expected files ending in {', '.join(SUFFIXES)} at any depth, or "
            "folders of DICOM files; a table needs at least one row."
        )
    return tuple(scans)


def _scans_of_table(
    path: Path, image_columns: tuple[str, ...], subject_column: str | None, root: Path
) -> list[Scan]:
    rows = rows_of_table(
        read_table(path),
        root=root,
        image_columns=image_columns,
        label_column=None,
        subject_column=subject_column,
        split_column=None,
    )
    return [
        Scan(row.subject or f"row {row.line}", row.images)
        if row.images
        else Scan(row.subject or f"row {row.line}", (), f"row {row.line} of {path.name} names no image")
        for row in rows
    ]


def _scans_of_folder(folder: Path, image_columns: tuple[str, ...]) -> list[Scan]:
    if len(image_columns) < 2:
        return [Scan(_name_below(folder, image), (image,)) for image in images_below(folder)]
    inner = [path for path in _sorted(folder) if path.is_dir()]
    alone = any(_is_image(path) for path in _sorted(folder)) or not inner
    subjects = [folder] if alone else inner
    return [scan for subject in subjects for scan in _scans_of_subject(subject, image_columns)]


def images_below(folder: Path) -> Iterator[Path]:
    """Yields every image at any depth, sorted: files of known formats, and folders that hold DICOM files.

    A pair (header and data) is named by its header, and so counted once; hidden entries are passed over.
    """
    entries = _sorted(folder)
    yield from (path for path in entries if _is_image(path))
    if any(_is_dicom(path) for path in entries if path.is_file() and not _is_image(path)):
        yield folder
    for inner in (path for path in entries if path.is_dir()):
        yield from images_below(inner)


def _scans_of_subject(folder: Path, image_columns: tuple[str, ...]) -> list[Scan]:
    """One scan; or one for each folder below, as sessions are, where each holds every channel once."""
    images = list(images_below(folder))
    chosen, problem = _channels(images, image_columns)
    if not problem:
        return [Scan(folder.name, chosen)]
    telling = [image for image in images if any(_tells(image, column) for column in image_columns)]
    homes = list(dict.fromkeys(image.parent for image in telling))
    sessions = [
        _channels([image for image in telling if image.parent == home], image_columns) for home in homes
    ]
    if len(homes) < 2 or any(wrong for _, wrong in sessions):
        return [Scan(folder.name, tuple(images), f"{folder.name}: {problem}")]
    return [Scan(folder.name, of_session) for of_session, _ in sessions]


def _channels(images: Sequence[Path], image_columns: tuple[str, ...]) -> tuple[tuple[Path, ...], str]:
    """Returns the image of each column, or why they cannot be told."""
    chosen: list[Path] = []
    for column in image_columns:
        fits = [image for image in images if _tells(image, column)]
        if len(fits) != 1:
            found = list_some([image.name for image in fits]) if fits else "none"
            return (), f"expected one image of {column}, by its name; found {found}"
        chosen += fits
    return tuple(chosen), ""


def _tells(image: Path, column: str) -> bool:
    """Whether a file's name says that it holds a channel: `sub-1_T1.nii.gz` that of the column `t1`."""
    if "{" in column:  # a pattern over columns: its last part, whatever the columns hold
        return fnmatch(image.name, re.sub(r"\{[^{}]*\}", "*", column.rpartition("/")[2]))
    words = re.split(r"[^a-z0-9]+", image.name.lower())
    wanted = [word for word in re.split(r"[^a-z0-9]+", column.lower()) if word]
    return any(words[at : at + len(wanted)] == wanted for at in range(len(words)))


def _name_below(folder: Path, image: Path) -> str:
    return image.name if image == folder else image.relative_to(folder).as_posix()


def _sorted(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _is_image(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


def _is_dicom(path: Path) -> bool:
    offset, mark = DICOM_MARK
    try:
        with path.open("rb") as file:
            return file.read(offset + len(mark))[offset:] == mark
    except OSError:
        return False
