"""Select the volumes that a page shows, cut planes through them, and draw these with Grad-CAM as pictures."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.image import imsave
from numpy.typing import NDArray

from voxlift.app.inference.overlay import three_planes
from voxlift.data_pipelines.tables.manifest import join_images

if TYPE_CHECKING:
    from voxlift.app.data.cohort import Cohort
    from voxlift.app.evaluation.scores import Scores

log = logging.getLogger("voxlift")

MAX_CASES = 4
MIN_HEIGHT = 192  # pixels: planes of few voxels are enlarged, so that printing does not blur them
GAP = 2  # pixels between planes
MAP_OPACITY = 0.55


@dataclass(frozen=True, eq=False)
class Case:
    """One volume that a page shows.

    Attributes:
        subject: Name of the subject.
        truth: Name of its class.
        decided: Name of the class that the model predicted.
        probability: Probability given to the predicted class.
        planes: Axial, coronal and sagittal image [height, width] of any finite range, row 0 on top, pixels
            square.
        maps: Grad-CAM [height, width] in 0..1 per plane, drawn over it; empty for none.
    """

    subject: str
    truth: str
    decided: str
    probability: float
    planes: Sequence[NDArray[np.floating]]
    maps: Sequence[NDArray[np.floating]] = ()


def pick_cases(
    scores: Scores,
    cohort: Cohort,
    network: Any | None = None,  # noqa: ANN401 - untyped Keras
) -> tuple[list[Case], list[Case]]:
    """Return the wrong and the correct decisions with the highest predicted probability.

    Args:
        scores: Scores of the split to show.
        cohort: The cohort whose prepared files are shown.
        network: Network for Grad-CAM over the cases; None shows them without.
    """
    decided_probability = scores.probabilities[np.arange(len(scores)), scores.decisions]
    order = np.argsort(-decided_probability, kind="stable")
    is_correct = scores.decisions == scores.labels
    wrong, correct = order[~is_correct[order]][:MAX_CASES], order[is_correct[order]][:MAX_CASES]
    return build_cases(scores, wrong, cohort, network), build_cases(scores, correct, cohort, network)


def build_cases(
    scores: Scores,
    rows: Iterable[int],
    cohort: Cohort,
    network: Any | None = None,  # noqa: ANN401 - as above
) -> list[Case]:
    """Return the cases of some rows of scores, from the prepared files of their cohort."""
    positions = {join_images(record.images): i for i, record in enumerate(cohort.records)}
    return [
        build_case(scores, int(row), read_prepared(cohort, positions[scores.items[row]]), network)
        for row in rows
    ]


def read_prepared(cohort: Cohort, position: int) -> NDArray[np.float32]:
    """Return the prepared voxels of one record, float32 [D, H, W, C]."""
    stored = np.fromfile(cohort.files[position], cohort.dtype).reshape(cohort.shape)
    return stored.astype(np.float32)


def build_case(scores: Scores, index: int, voxels: NDArray[np.float32], network: Any | None = None) -> Case:  # noqa: ANN401 - as above
    """Return one volume cut through the maximum of Grad-CAM for the predicted class, or through its middle.

    Args:
        scores: Scores of the model.
        index: Row of the volume in them.
        voxels: Prepared voxels [D, H, W, C].
        network: Network for Grad-CAM; None shows the volume without.
    """
    decided = int(scores.decisions[index])
    heat = _compute_map(network, voxels, decided)
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


def _compute_map(network: Any, voxels: NDArray[np.float32], label: int) -> NDArray[np.float32] | None:  # noqa: ANN401 - as above
    """Return Grad-CAM in 0..1; None without a network, or where it has no layer for a map."""
    if network is None:
        return None
    from voxlift.app.inference.maps import explain_volume  # Keras: only with a network

    try:
        return explain_volume(network, voxels, label=label).scaled
    except ValueError as error:  # a missing picture must not make a finished training fail
        log.info("The page shows no Grad-CAM: %s", error)
        return None


def case_picture(case: Case) -> str:
    """Return a PNG of the planes of a case, side by side, as a data URL."""
    tiles = [_to_grey(plane) for plane in case.planes]
    if case.maps:
        tiles = [_blend_map(tile, heat) for tile, heat in zip(tiles, case.maps, strict=True)]
    strip = join_planes(tiles)
    factor = max(1, -(-MIN_HEIGHT // strip.shape[0]))
    return encode_png(np.kron(strip, np.ones((factor, factor, 1))).clip(0, 1))


def join_planes(planes: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return images [H, W, RGB] side by side on black, each centred vertically."""
    height = max(plane.shape[0] for plane in planes)
    padded = []
    for plane in planes:
        above = (height - plane.shape[0]) // 2
        padded.append(np.pad(plane, ((above, height - plane.shape[0] - above), (GAP, 0), (0, 0))))
    return np.concatenate(padded, axis=1)[:, GAP:]


def encode_png(image: NDArray[Any]) -> str:
    """Return an image [H, W, RGB], float in 0..1 or uint8, as the data URL of a PNG."""
    stream = io.BytesIO()
    imsave(stream, image, format="png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _to_grey(plane: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return a plane [H, W] as grey colours [H, W, RGB] in 0..1, cut at its 1st and 99th percentile."""
    low, high = np.percentile(plane, [1, 99])
    grey = np.clip((plane - low) / max(float(high - low), 1e-9), 0, 1).astype(np.float64)
    return np.repeat(grey[..., None], 3, axis=-1)


def _blend_map(tile: NDArray[np.float64], heat: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return a tile with a map [H, W] in 0..1 over it, transparent where the map is 0."""
    bounded = np.clip(heat, 0, 1).astype(np.float64)
    opacity = MAP_OPACITY * bounded[..., None]
    colours = np.asarray(colormaps["inferno"](bounded), dtype=np.float64)[..., :3]
    blended: NDArray[np.float64] = (1 - opacity) * tile + opacity * colours
    return blended
