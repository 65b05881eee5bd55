"""Build the cases of a page: prepared volumes with Grad-CAM and mask, cut through what they show."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.evaluation.scores import Predictions
from voxlift.app.inference.overlay import three_planes
from voxlift.app.report.case_facts import CaseFacts, CaseRow, Shown, describe_row, name_volume, rank_cases
from voxlift.app.report.sprites import Sprite, Voxel, build_sprite, find_object
from voxlift.data_pipelines.cache.format import PreparedVolumes, load_metadata
from voxlift.data_pipelines.preprocess.prepare import prepare_volume
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.volume import Affine, VolumeError

if TYPE_CHECKING:
    from voxlift.app.data.cohort import Cohort

log = logging.getLogger("voxlift")

MAX_CASES = 12
MAP_NAME, MASK_NAME = "Grad-CAM", "Mask"


@dataclass(frozen=True, eq=False)
class Case:
    """One volume that a page shows.

    Attributes:
        subject: Name of the subject, with what distinguishes its volumes where it has several.
        truth: The label in the table, as `true class benign`.
        decided: What the model predicted, as `decided malignant: probability of malignant 0.970`.
        planes: Axial, coronal and sagittal image [height, width] of any finite range, row 0 on top, pixels
            square.
        maps: Grad-CAM [height, width] in 0..1 per plane, drawn over it; empty for none.
        masks: A mask [height, width] per plane, 0 or 1, whose edge is drawn; empty for none.
        sprite: The whole volume, for the viewer; None for a picture alone.
        facts: See `CaseFacts`.
        item: Name of the volume in the scores.
    """

    subject: str
    truth: str
    decided: str
    planes: Sequence[NDArray[np.floating]]
    maps: Sequence[NDArray[np.floating]] = ()
    masks: Sequence[NDArray[np.floating]] = ()
    sprite: Sprite | None = None
    facts: CaseFacts = field(default_factory=CaseFacts)
    item: str = ""


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of a prepared volume are, and what they mean.

    Attributes:
        affine: 4x4, (width, height, depth) index to world mm, RAS+; None: not known.
        spacing: mm (depth, height, width), used where there is no affine.
        has_sides: Whether the axes are R, A, S.
        units: Values that the voxels 0 and 1 stand for, the bounds of a window; None: themselves.
        has_mask: Whether the last channel is a mask.
    """

    affine: Affine | None = None
    spacing: Sequence[float] = (1.0, 1.0, 1.0)
    has_sides: bool = False
    units: tuple[float, float] | None = None
    has_mask: bool = False


def pick_cases(
    scores: Predictions,
    cohort: Cohort,
    network: Any | None = None,  # noqa: ANN401 - untyped Keras
    count: int = MAX_CASES,
) -> tuple[list[Case], list[Case]]:
    """Return the wrong and the correct decisions with the highest predicted probability.

    For grades the wrong ones are those that are off by most grades; numbers: the largest and the smallest
    errors.

    Args:
        scores: Predictions for the split to show.
        cohort: The cohort whose prepared files are shown.
        network: Network for Grad-CAM over the cases; None shows them without.
        count: Of both together, half of each where there are enough.
    """
    wrong, right = rank_cases(scores)
    errors = wrong[: max((count + 1) // 2, count - len(right))]
    correct = right[: count - len(errors)]
    return build_cases(scores, errors, cohort, network), build_cases(scores, correct, cohort, network)


def build_cases(
    scores: Predictions,
    rows: Iterable[CaseRow],
    cohort: Cohort,
    network: Any | None = None,  # noqa: ANN401 - as above
) -> list[Case]:
    """Return the cases of some rows of scores, from the prepared files of their cohort."""
    positions = {record.item: i for i, record in enumerate(cohort.records)}
    return [
        build_case(
            name_volume(scores, row),
            describe_row(scores, row, output),
            read_prepared(cohort, positions[scores.items[row]]),
            network,
            grid=find_grid(cohort, positions[scores.items[row]]),
            item=scores.items[row],
            columns=None if cohort.columns is None else cohort.columns.features[positions[scores.items[row]]],
        )
        for row, output in rows
    ]


def read_prepared(cohort: Cohort, position: int) -> NDArray[np.float32]:
    """Return the prepared voxels of one record, float32 [D, H, W, C]."""
    stored = np.fromfile(cohort.files[position], cohort.dtype).reshape(cohort.shape)
    return stored.astype(np.float32)


def build_case(
    subject: str,
    shown: Shown,
    voxels: NDArray[np.float32],
    network: Any | None = None,  # noqa: ANN401 - as above
    *,
    grid: Grid | None = None,
    item: str = "",
    columns: NDArray[np.float32] | None = None,
) -> Case:
    """Return one volume cut through its mask, the maximum of Grad-CAM on the object, or the object's middle.

    Args:
        subject: Its name.
        shown: What is shown of it, and explained.
        voxels: Prepared voxels [D, H, W, C].
        network: Network for Grad-CAM; None shows the volume without.
        grid: Where the voxels are; None: cubes of 1 mm, without a mask.
        item: Name of the volume in the scores.
        columns: [F] of the table, which the network takes beside the image and the map holds.
    """
    heat = _compute_map(network, voxels, shown, columns)
    sprite = place_sprite(voxels, grid or Grid(), heat)
    case = Case(subject, shown.truth, shown.decided, (), sprite=sprite, facts=shown.facts, item=item)
    return cut_case(case, find_object(sprite))


def place_sprite(
    voxels: NDArray[np.float32], grid: Grid, heat: NDArray[np.float32] | None, *, name: str = MAP_NAME
) -> Sprite:
    """Return the first channel of prepared voxels [D, H, W, C] for the viewer, below a map and the mask.

    Args:
        voxels: Prepared voxels; the last channel is the mask where the grid has one.
        grid: Where the voxels are.
        heat: A map [D, H, W] in 0..1; None: none.
        name: Of the map.
    """
    return build_sprite(
        voxels[..., 0],
        grid.affine,
        spacing=grid.spacing,
        maps={} if heat is None else {name: heat},
        masks={MASK_NAME: voxels[..., -1]} if grid.has_mask else {},
        has_sides=grid.has_sides,
        units=grid.units,
    )


def cut_case(case: Case, at: Voxel) -> Case:
    """Return the case with the planes through a voxel of its sprite."""
    sprite = case.sprite
    if sprite is None:
        return case
    levels = {name: one.astype(np.float32) / np.float32(255) for name, one in sprite.overlays.items()}
    maps = [one for name, one in levels.items() if name not in sprite.masks]
    masks = [levels[name] for name in sprite.masks]
    return replace(
        case,
        planes=three_planes(sprite.image.astype(np.float32), at),
        maps=three_planes(maps[0], at) if maps else (),
        masks=three_planes(masks[0], at) if masks else (),
    )


def share_planes(cases: Mapping[str, Case]) -> dict[str, Case]:
    """Return the cases of the models of one volume, cut through the same voxel or place in mm."""
    merged, sprites = merge_sprites(cases), [case.sprite for case in cases.values()]
    if merged is not None:
        at = find_object(merged)
        return {name: cut_case(case, at) for name, case in cases.items()}
    if not all(sprite is not None and sprite.has_world for sprite in sprites):
        return dict(cases)
    first = next(sprite for sprite in sprites if sprite is not None)
    place = first.affine @ [*find_object(first)[::-1], 1.0]
    return {
        name: cut_case(case, _voxel_at(case.sprite, place)) for name, case in cases.items() if case.sprite
    }


def _voxel_at(sprite: Sprite, place: NDArray[np.float64]) -> Voxel:
    """Return the voxel of a sprite nearest to a place in mm, [x, y, z, 1]."""
    index = np.rint(np.linalg.inv(sprite.affine) @ place)[:3][::-1]
    depth, height, width = (int(n) for n in np.clip(index, 0, np.array(sprite.image.shape) - 1))
    return depth, height, width


def merge_sprites(cases: Mapping[str, Case]) -> Sprite | None:
    """Return one sprite with the maps of all models, by model; None where the models saw different voxels."""
    sprites = {name: case.sprite for name, case in cases.items() if case.sprite is not None}
    first = next(iter(sprites.values()), None)
    if first is None or len(sprites) < len(cases):
        return None
    if any(not np.array_equal(first.image, one.image) for one in sprites.values()):
        return None
    maps = {
        f"{kind} of {name}": levels
        for name, one in sprites.items()
        for kind, levels in one.overlays.items()
        if kind not in one.masks
    }
    return replace(first, overlays=maps | {name: first.overlays[name] for name in first.masks})


def find_grid(cohort: Cohort, position: int) -> Grid:
    """Return where the prepared voxels of one record of a cohort are."""
    return build_grid(cohort.preprocess, _find_affine(cohort, position))


def build_grid(preprocess: Preprocess, affine: Affine | None) -> Grid:
    """Return the grid of a volume that was prepared with some settings."""
    window = preprocess.window_hu
    return Grid(
        affine=affine,
        spacing=preprocess.spacing or (1.0, 1.0, 1.0),
        has_sides=preprocess.axcodes == "RAS",
        units=(window[0], window[1]) if window and preprocess.zscore == "none" else None,
        has_mask="channel" in preprocess.mask,
    )


def _find_affine(cohort: Cohort, position: int) -> Affine | None:
    """Return the affine of a prepared volume; None where an old cache lacks it and the image is gone."""
    record = cohort.records[position]
    try:
        volumes = PreparedVolumes((cohort.files[position],), cohort.shape, cohort.dtype)
        known = load_metadata([record.images], volumes, cohort.preprocess)[0].affine
        if known is not None:
            return np.array(known, np.float64)
        return prepare_volume(record.images, cohort.preprocess, record.region).affine
    except (VolumeError, OSError) as error:
        log.info("The page shows no positions in mm: %s", error)
        return None


def _compute_map(
    network: Any,  # noqa: ANN401 - as above
    voxels: NDArray[np.float32],
    shown: Shown,
    columns: NDArray[np.float32] | None,
) -> NDArray[np.float32] | None:
    """Return Grad-CAM in 0..1; None without a network, or where it has no layer for a map."""
    if network is None:
        return None
    from voxlift.app.inference.maps import explain_volume  # Keras: only with a network

    try:
        return explain_volume(network, voxels, label=shown.label, kind=shown.kind, columns=columns).scaled
    except ValueError as error:  # a missing picture must not make a finished training fail
        log.info("The page shows no Grad-CAM: %s", error)
        return None
