"""Describe each record's mask or centre in numbers, and find those that select nothing of their image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from voxlift.data_pipelines.audit.facts import Facts
from voxlift.data_pipelines.audit.findings import Finding
from voxlift.data_pipelines.files import is_absent
from voxlift.data_pipelines.geometry import is_same_grid, spacing_of
from voxlift.data_pipelines.preprocess.region import (
    Mask,
    RegionError,
    count_components,
    place_region,
    read_mask,
)
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.tables.manifest import Record
from voxlift.data_pipelines.tables.regions import Region, name_centre
from voxlift.data_pipelines.volume import Stored, VolumeError


@dataclass(frozen=True)
class RegionFacts:
    """The facts of a record's mask or centre; where `problem` is set, no training can use it.

    Attributes:
        region: The mask or centre.
        problem: The kind of finding, "" for none: `mask_absent`, `mask_unreadable`, `mask_empty`,
            `mask_off_grid` or `centre_outside`.
        message: What is wrong, in words.
        volume_ml: Volume of the mask in millilitres.
        components: Number of its connected parts.
        extent_mm: Sides of its box in the image, ordered (depth, height, width).
        is_on_grid: Whether the mask has the grid of its image, so that it need not be resampled.
    """

    region: Region
    problem: str = ""
    message: str = ""
    volume_ml: float | None = None
    components: int | None = None
    extent_mm: tuple[float, ...] = ()
    is_on_grid: bool = True


def read_region_facts(region: Region, image: Facts, *, prefer: str = "sform") -> RegionFacts | None:
    """Return the facts of a mask or a centre; None where its image could not be read.

    Args:
        region: The mask or centre.
        image: The facts of the record's first image.
        prefer: As in `readers.load_volume`.
    """
    if image.error:
        return None
    # Only its grid matters here: an array without memory stands for the voxels.
    first = Stored(np.broadcast_to(np.uint8(0), image.stored_shape), image.affine, image.path, image.kind)
    settings = Preprocess(mask=("crop",), prefer=prefer)
    mask: Mask | None = None
    try:
        mask = None if region.mask is None else read_mask(region.mask, settings)
        edges = place_region(region, first, settings, mask).edges
    except RegionError as error:
        return RegionFacts(region, error.kind, str(error), **_describe_mask(mask))
    except VolumeError as error:
        is_lost = region.mask is not None and is_absent(region.mask)
        return RegionFacts(region, "mask_absent" if is_lost else "mask_unreadable", str(error))
    sides = (edges[1] - edges[0])[::-1] * spacing_of(image.affine)
    is_on_grid = mask is None or is_same_grid(
        mask.inside.shape, mask.affine, image.stored_shape, image.affine
    )
    extent = tuple(float(side) for side in sides)
    return RegionFacts(region, extent_mm=extent, is_on_grid=is_on_grid, **_describe_mask(mask))


def region_row(facts: RegionFacts | None) -> dict[str, str | int | float]:
    """Return the cells of a mask or centre in a CSV file; empty ones where there are no facts."""
    if facts is None:
        return dict.fromkeys(("mask", "centre", "mask_ml", "mask_parts", "extent_mm", "region_problem"), "")
    centre = facts.region.centre
    return {
        "mask": str(facts.region.mask or ""),
        "centre": "" if centre is None else name_centre(centre),
        "mask_ml": "" if facts.volume_ml is None else round(facts.volume_ml, 4),
        "mask_parts": "" if facts.components is None else facts.components,
        "extent_mm": "x".join(f"{side:.4g}" for side in facts.extent_mm),
        "region_problem": facts.problem,
    }


def _describe_mask(mask: Mask | None) -> dict[str, Any]:
    if mask is None:
        return {}
    return {"volume_ml": mask.volume_ml, "components": count_components(mask.inside)}


def check_regions(
    records: Sequence[Record], regions: Sequence[RegionFacts | None], *, skips_bad: bool = False
) -> Iterator[Finding]:
    """Yield masks and centres that select nothing, and what preprocessing does with the others.

    Args:
        records: The records.
        regions: Their facts; None where there is no mask, no centre or no readable image.
        skips_bad: Whether training leaves out records that cannot be prepared, which then spoil nothing.
    """
    known = [(record, facts) for record, facts in zip(records, regions, strict=True) if facts is not None]
    severity = "warning" if skips_bad else "error"
    for record, facts in known:
        if facts.problem:
            where = (str(facts.region.mask or record.images[0]),)
            yield Finding(facts.problem, severity, facts.message, where, spoils=not skips_bad)
    masks = [facts for _, facts in known if facts.region.mask is not None and not facts.problem]
    others = [facts for facts in masks if not facts.is_on_grid]
    yield from _note("mask_resampled", others, f"of {len(masks)} masks are not on the grid of their image")
    parted = [facts for facts in masks if (facts.components or 0) > 1]
    yield from _note("mask_parts", parted, f"of {len(masks)} masks have several connected parts")


def _note(kind: str, found: Sequence[RegionFacts], text: str) -> Iterator[Finding]:
    if found:
        where = tuple(str(facts.region.mask) for facts in found)
        yield Finding(kind, "note", f"{len(found)} {text}", where)
