"""The cases that a run's page shows: the volumes that the model was surest of, and where it looked."""

from __future__ import annotations

import base64
import io
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.image import imsave
from numpy.typing import NDArray

from voxlift.app.inference.maps import explain_volume
from voxlift.app.inference.overlay import three_planes
from voxlift.app.report.summary import Case
from voxlift.data_pipelines.tables.images import join_images

if TYPE_CHECKING:
    from voxlift.app.data.cohort import Cohort
    from voxlift.app.evaluation.scores import Scores


log = logging.getLogger("voxlift")

SHOWN_CASES = 4


def pick_cases(
    scores: Scores,
    cohort: Cohort,
    network: Any | None = None,  # noqa: ANN401 - untyped Keras
) -> tuple[list[Case], list[Case]]:
    """The volumes that the model was surest of: those it got wrong, and those it got right.

    Args:
        scores: of the split to show.
        cohort: whose prepared files are shown.
        network: draws Grad-CAM over the cases; None shows them plain.
    """
    chosen = scores.probabilities[np.arange(len(scores)), scores.decisions]
    order = np.argsort(-chosen, kind="stable")
    is_right = scores.decisions == scores.labels
    wrong = [int(i) for i in order if not is_right[i]][:SHOWN_CASES]
    right = [int(i) for i in order if is_right[i]][:SHOWN_CASES]
    positions = positions_of(cohort)

    def build(index: int) -> Case:
        return build_case(scores, index, read_prepared(cohort, positions[scores.items[index]]), network)

    return [build(i) for i in wrong], [build(i) for i in right]


def read_prepared(cohort: Cohort, position: int) -> NDArray[np.float32]:
    """One record's prepared voxels, float32 [D, H, W, C]."""
    stored = np.fromfile(cohort.files[position], cohort.dtype).reshape(cohort.shape)
    return stored.astype(np.float32)


def positions_of(cohort: Cohort) -> dict[str, int]:
    """Where each volume stands among a cohort's records, by its item in scores."""
    return {join_images(record.images): i for i, record in enumerate(cohort.records)}


def build_case(scores: Scores, index: int, voxels: NDArray[np.float32], network: Any | None = None) -> Case:  # noqa: ANN401 - as above
    """One volume to look at: cut through the maximum of Grad-CAM for the decided class, else in the middle.

    Args:
        scores: the model's.
        index: the volume's row in them.
        voxels: [D, H, W, C] as prepared.
        network: draws Grad-CAM; None shows the volume plain.
    """
    decided = int(scores.decisions[index])
    heat = _heat(network, voxels, decided)
    at = tuple(side // 2 for side in voxels.shape[:3])
    if heat is not None and heat.any():
        at = tuple(int(place) for place in np.unravel_index(int(heat.argmax()), heat.shape))
    depth, height, width = at
    return Case(
        subject=scores.subjects[index],
        truth=scores.classes[scores.labels[index]],
        decided=scores.classes[decided],
        probability=float(scores.probabilities[index, decided]),
        planes=three_planes(voxels[..., 0], (depth, height, width)),
        maps=() if heat is None else three_planes(heat, (depth, height, width)),
    )


def _heat(network: Any, voxels: NDArray[np.float32], label: int) -> NDArray[np.float32] | None:  # noqa: ANN401 - as above
    """Grad-CAM in 0..1; None without a network, or with one that has no map to give."""
    if network is None:
        return None
    try:
        return explain_volume(network, voxels, label=label).shown
    except ValueError as error:  # a finished training is worth more than a picture
        log.info("The page shows no Grad-CAM: %s", error)
        return None


SMALLEST_HEIGHT = 192  # pixels: a 32-voxel volume is enlarged, so that print does not blur it
GAP = 2


def case_picture(case: Case) -> str:
    """A PNG of the case's planes, from left to right on black, as a data address."""
    tiles = [_grey(plane) for plane in case.planes]
    if case.maps:
        tiles = [_over(tile, heat) for tile, heat in zip(tiles, case.maps, strict=True)]
    height = max(tile.shape[0] for tile in tiles)
    strip = np.concatenate([_centred(tile, height) for tile in tiles], axis=1)[:, GAP:]
    enlarge = max(1, -(-SMALLEST_HEIGHT // height))
    stream = io.BytesIO()
    imsave(stream, np.kron(strip, np.ones((enlarge, enlarge, 1))).clip(0, 1), format="png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _grey(plane: NDArray[np.floating]) -> NDArray[np.float64]:
    """A plane [H, W] as grey colours [H, W, 3] in 0..1, cut at its 1st and 99th percentile."""
    low, high = np.percentile(plane, [1, 99])
    grey = np.clip((plane - low) / max(float(high - low), 1e-9), 0, 1).astype(np.float64)
    return np.repeat(grey[..., None], 3, axis=-1)


def _over(tile: NDArray[np.float64], heat: NDArray[np.floating]) -> NDArray[np.float64]:
    """A map [H, W] in 0..1 laid over a tile, clear where it is 0."""
    bounded = np.clip(heat, 0, 1).astype(np.float64)
    strength = 0.55 * bounded[..., None]
    colours = np.asarray(colormaps["inferno"](bounded), dtype=np.float64)[..., :3]
    mixed: NDArray[np.float64] = (1 - strength) * tile + strength * colours
    return mixed


def _centred(tile: NDArray[np.float64], height: int) -> NDArray[np.float64]:
    above = (height - tile.shape[0]) // 2
    padding = ((above, height - tile.shape[0] - above), (GAP, 0), (0, 0))
    return np.pad(tile, padding)
