"""A table that training refuses, read all the same, so that an audit can say everything about it at once."""

from collections import Counter
from pathlib import Path

from voxlift.data_pipelines.tables.labels import index_labels
from voxlift.data_pipelines.tables.manifest import Manifest, Record, TableOptions, rows_of
from voxlift.data_pipelines.tables.rows import Row, find_split


def load_all_rows(table: str | Path, options: TableOptions) -> Manifest:
    """Returns every row that names an image and has a label, for an audit, never for training.

    Unlike `load_manifest`, it keeps rows whose image does not exist, rows that contradict each other, and
    rows without a subject or with an unknown split: reading and comparing the files tells what is wrong.

    Args:
        table: As in `load_manifest`.
        options: What its columns mean.

    Raises:
        ManifestError: The table itself cannot be read, lacks a column, or holds fewer than two classes.
    """
    source = Path(table).expanduser().absolute()
    rows = rows_of(source, options)
    labels, names = index_labels(
        [row.label for row in rows], classes=options.classes, label_bins=options.label_bins
    )
    pairs = list(zip(rows, labels, strict=True))
    left_out = Counter(label for _, label in pairs if isinstance(label, str))
    left_out["image missing"] = sum(row.images is None and isinstance(label, int) for row, label in pairs)
    records = [
        _record(row, row.images, label) for row, label in pairs if row.images and isinstance(label, int)
    ]
    once = {(one.images, one.subject, one.label, one.split): one for one in reversed(records)}
    left_out["image listed twice"] = len(records) - len(once)
    return Manifest(tuple(reversed(once.values())), names, dict(+left_out), source)


def _record(row: Row, images: tuple[Path, ...], label: int) -> Record:
    split = find_split(row.split) if row.split else None
    return Record(row.subject or f"row {row.line}", images, label, split, row.line)
