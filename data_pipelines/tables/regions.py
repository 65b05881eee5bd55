"""Read a table's masks and centres: which columns hold them, and what each row's cells mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.tables.patterns import fields_of, find_paths
from voxlift.data_pipelines.tables.reader import Table, is_missing, is_number

BAD_CENTRE = "centre is no number"

Images = tuple[Path, ...]
Point = tuple[float, float, float]  # world mm


@dataclass(frozen=True)
class Region:
    """Where in its images a record's lesion, organ or candidate is.

    Attributes:
        mask: File of its mask; None for a point.
        centre: Point in world mm, RAS+; None for a mask.
        name: What distinguishes the record from others of the same images; empty where there are none.
    """

    mask: Path | None = None
    centre: Point | None = None
    name: str = ""


Found = tuple[Images, Region | None, str]  # images of a record, its region, and why it has none


@dataclass(frozen=True)
class RegionColumns:
    """The columns of a table that say where in an image a row's lesion, organ or candidate is.

    Attributes:
        mask: Column of the mask's file, or a pattern over columns; where it matches several masks of an
            image, each is a record.
        centre: Columns of the world coordinates x, y, z in mm; empty for none.
        space: "RAS" or "LPS": the directions that the coordinates grow towards; empty: not given.
    """

    mask: str | None = None
    centre: Sequence[str] = ()
    space: str = "RAS"

    @property
    def needed(self) -> list[str]:
        """The columns that the table must have."""
        return [*(fields_of(self.mask) if self.mask else ()), *self.centre]


NO_REGIONS = RegionColumns()


def find_regions(
    table: Table,
    cells: Mapping[str, str],
    columns: RegionColumns,
    images: Sequence[Images],
    *,
    root: Path,
    line: int,
) -> list[Found]:
    """Return the records of a row: its images with their mask or centre, or with what they lack.

    Args:
        table: The table, for its decimal sign.
        cells: The row's text by column.
        columns: Those of mask or centre.
        images: The files of each of the row's volumes.
        root: Folder that relative paths start from.
        line: Of the row, for the message.

    Raises:
        ManifestError: Several volumes match another number of masks.
    """
    if not images:
        return []
    if columns.mask:
        return _pair_masks(
            find_paths(cells, (columns.mask,), root=root, line=line), images, columns.mask, line
        )
    if columns.centre:
        region, problem = read_centre(
            [table.with_decimal_point(cells[name]) for name in columns.centre], columns
        )
        return [(one, region, problem) for one in images]
    return [(one, None, "") for one in images]


def name_mask(region: Region | None, *, is_shared: bool) -> Region | None:
    """Return a mask that is one of several of an image with its path as a name; any other region as it is."""
    if region is None or region.mask is None or not is_shared:
        return region
    return replace(region, name=str(region.mask))


def write_region(region: Region | None) -> dict[str, str]:
    """Return a region as the cells `mask`, `centre` and `region` (its name); no cells where there is none."""
    if region is None:
        return {}
    mask = "" if region.mask is None else str(region.mask)
    centre = "" if region.centre is None else ",".join(map(repr, region.centre))
    return {"mask": mask, "centre": centre, "region": region.name}


def read_region(cells: Mapping[str, str]) -> Region | None:
    """Return the region of a row's cells; the inverse of `write_region`."""
    if not cells.get("mask") and not cells.get("centre"):
        return None
    if cells["mask"]:
        return Region(mask=Path(cells["mask"]), name=cells["region"])
    x, y, z = map(float, cells["centre"].split(","))
    return Region(centre=(x, y, z), name=cells["region"])


def _pair_masks(masks: Sequence[Images], images: Sequence[Images], column: str, line: int) -> list[Found]:
    if not masks:
        return [(one, None, "mask missing") for one in images]
    if len(images) == 1:
        images = list(images) * len(masks)
    if len(images) != len(masks):
        raise ManifestError(
            f"Row {line}: expected as many masks as images, but {column} matches {len(masks)} files for "
            f"{len(images)} images. Make the patterns more specific, for instance for one session."
        )
    return [(one, Region(mask=mask), "") for one, (mask,) in zip(images, masks, strict=True)]


def read_centre(texts: Sequence[str], columns: RegionColumns) -> tuple[Region | None, str]:
    """Return the region of three coordinates as text, or None with what is wrong with them.

    >>> read_centre(["-12.5", "3", "40"], RegionColumns(space="LPS"))[0].centre
    (12.5, -3.0, 40.0)
    """
    if any(map(is_missing, texts)):
        return None, "centre missing"
    if not all(map(is_number, texts)):
        return None, BAD_CENTRE
    x, y, z = map(float, texts)
    centre = to_ras((x, y, z), columns.space)
    return Region(centre=centre, name=name_centre(centre)), ""


def name_centre(centre: Point) -> str:
    """Return a point as text, which distinguishes the records of one image.

    >>> name_centre((12.5, -3.0, 40.25))
    '12.5,-3,40.25'
    """
    return ",".join(f"{mm:.10g}" for mm in centre)


def to_ras(point: Point, space: str) -> Point:
    """Return a point in RAS+ mm.

    Args:
        point: World coordinates in mm.
        space: "RAS" (NIfTI) or "LPS" (DICOM, ITK): the directions that the coordinates grow towards.
    """
    x, y, z = point if space == "RAS" else (-point[0], -point[1], point[2])
    return x + 0.0, y + 0.0, z + 0.0  # -0.0 becomes 0.0, which has another name
