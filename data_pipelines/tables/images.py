"""The images of a record as one cell of a table: one file, or one for each channel."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

BETWEEN = "|"


def join_images(images: Iterable[Path]) -> str:
    """A record's image files as one cell, by which scores and rows know its volume.

    >>> join_images([Path("t1.nii"), Path("flair.nii")])
    't1.nii|flair.nii'
    """
    return BETWEEN.join(map(str, images))


def split_images(cell: str) -> tuple[Path, ...]:
    """The inverse of `join_images`."""
    return tuple(map(Path, cell.split(BETWEEN)))
