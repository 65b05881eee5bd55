"""Select the volumes that a page shows, cut planes through them, and draw these with Grad-CAM as pictures."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from matplotlib import colormaps
from matplotlib.image import imsave
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from voxlift.app.evaluation.findings import Findings
from voxlift.app.evaluation.grades import Grades
from voxlift.app.evaluation.numbers import Numbers
from voxlift.app.evaluation.scores import Predictions, Scores
from voxlift.app.inference.overlay import three_planes
from voxlift.app.report.formatting import format_value

if TYPE_CHECKING:
    from voxlift.app.data.cohort import Cohort

log = logging.getLogger("voxlift")

MAX_CASES = 4
SUREST = "with the highest predicted probability"
MIN_HEIGHT = 192  # pixels: planes of few voxels are enlarged, so that printing does not blur them
GAP = 2  # pixels between planes
MAP_OPACITY = 0.55
MASK_COLOUR = (0.48, 0.90, 0.51)


@dataclass(frozen=True, eq=False)
class Case:
    """One volume that a page shows.

    Attributes:
        subject: Name of the subject.
        truth: What the table says, as `true class benign`.
        decided: What the model predicted, as `predicted malignant with probability 0.970`.
        planes: Axial, coronal and sagittal image [height, width] of any finite range, row 0 on top, pixels
            square.
        maps: Grad-CAM [height, width] in 0..1 per plane, drawn over it; empty for none.
        masks: A mask [height, width] per plane, 0 or 1, whose edge is drawn; empty for none.
    """

    subject: str
    truth: str
    decided: str
    planes: Sequence[NDArray[np.floating]]
    maps: Sequence[NDArray[np.floating]] = ()
    masks: Sequence[NDArray[np.floating]] = ()


@dataclass(frozen=True)
class Shown:
    """What a page says about one volume, and what its map explains.

    Attributes:
        truth: As in `Case`.
        decided: As in `Case`.
        label: Index of the class, finding or cut that the map explains.
        kind: See `models.explain.grad_cam`.
    """

    truth: str
    decided: str
    label: int
    kind: str


CaseRow: TypeAlias = tuple[int, int]
"""A row of predictions, and the finding that is shown; the latter is 0 for other predictions."""


def case_headings(scores: Predictions) -> tuple[str, str]:
    """Return the headings above the two groups of `pick_cases`."""
    if isinstance(scores, Numbers):
        return "Largest errors", "Smallest errors"
    if isinstance(scores, Grades):
        return "Largest errors in grades", f"Correct grades {SUREST}"
    return f"Errors {SUREST}", f"Correct decisions {SUREST}"


def pick_cases(
    scores: Predictions,
    cohort: Cohort,
    network: Any | None = None,  # noqa: ANN401 - untyped Keras
) -> tuple[list[Case], list[Case]]:
    """Return the wrong and the correct decisions with the highest predicted probability.

    For grades the wrong ones are those that are off by most grades; numbers: the largest and the smallest
    errors.

    Args:
        scores: Predictions for the split to show.
        cohort: The cohort whose prepared files are shown.
        network: Network for Grad-CAM over the cases; None shows them without.
    """
    wrong, correct = (build_cases(scores, rows[:MAX_CASES], cohort, network) for rows in rank_cases(scores))
    return wrong, correct


def rank_cases(scores: Predictions) -> tuple[list[CaseRow], list[CaseRow]]:
    """Return the rows of wrong decisions and of correct ones, in the order in which a page shows them."""
    if isinstance(scores, Numbers):
        order = [(int(row), 0) for row in np.argsort(np.abs(scores.errors), kind="stable")]
        half = len(order) // 2
        return order[::-1][:half], order[:half]
    if isinstance(scores, Findings):
        decided = np.where(scores.decisions == 1, scores.probabilities, 1 - scores.probabilities)
        known = [(int(row), int(k)) for row, k in np.argwhere(scores.is_known)]
        known.sort(key=lambda cell: -decided[cell])
        is_right = scores.decisions == scores.labels
        return [cell for cell in known if not is_right[cell]], [cell for cell in known if is_right[cell]]
    if not isinstance(scores, Scores):
        return [], []
    decided = scores.probabilities[np.arange(len(scores)), scores.decisions]
    surest = np.argsort(-decided, kind="stable")
    steps = np.abs(scores.decisions - scores.labels)
    wrong, right = surest[steps[surest] > 0], surest[steps[surest] == 0]
    if isinstance(scores, Grades):
        wrong = wrong[np.argsort(-steps[wrong], kind="stable")]
    return [(int(row), 0) for row in wrong], [(int(row), 0) for row in right]


def describe_row(scores: Predictions, row: int, output: int = 0) -> Shown:
    """Return what is said about one row.

    Args:
        scores: The predictions.
        row: Of them.
        output: Of findings: which one is shown.
    """
    if isinstance(scores, Numbers):
        unit = f" {scores.unit}" if scores.unit else ""
        truth, value = (format_value(float(number)) for number in (scores.labels[row], scores.values[row]))
        return Shown(f"measured {truth}{unit}", f"predicted {value}{unit}", 0, "number")
    if isinstance(scores, Findings):
        words = {0.0: "absent", 1.0: "present"}
        truth = words.get(float(scores.labels[row, output]), "unknown")
        decided = words[float(scores.decisions[row, output])]
        p = scores.probabilities[row, output]
        name = scores.names[output]
        return Shown(f"{name} {truth}", f"predicted {decided}, probability {p:.3f}", output, "finding")
    if not isinstance(scores, Scores):
        raise TypeError(f"{type(scores).__name__} cannot be shown.")
    label, p = int(scores.decisions[row]), float(scores.probabilities[row, scores.decisions[row]])
    truth, decided = scores.classes[scores.labels[row]], scores.classes[label]
    predicted = f"predicted {decided} with probability {p:.3f}"
    if isinstance(scores, Grades):
        return Shown(f"true grade {truth}", predicted, max(0, label - 1), "cut")
    return Shown(f"true class {truth}", predicted, label, "class")


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
            scores.subjects[row],
            describe_row(scores, row, output),
            read_prepared(cohort, positions[scores.items[row]]),
            network,
            has_mask="channel" in cohort.preprocess.mask,
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
    has_mask: bool = False,
    columns: NDArray[np.float32] | None = None,
) -> Case:
    """Return one volume cut through the maximum of Grad-CAM of what is explained, or through its middle.

    Args:
        subject: Its name.
        shown: What is said about it, and explained.
        voxels: Prepared voxels [D, H, W, C].
        network: Network for Grad-CAM; None shows the volume without.
        has_mask: Whether the last channel is a mask, whose edge is drawn.
        columns: [F] of the table, which the network takes beside the image and the map holds.
    """
    heat = _compute_map(network, voxels, shown, columns)
    at = tuple(side // 2 for side in voxels.shape[:3])
    if heat is not None and heat.any():
        at = tuple(int(place) for place in np.unravel_index(int(heat.argmax()), heat.shape))
    depth, height, width = at
    return Case(
        subject=subject,
        truth=shown.truth,
        decided=shown.decided,
        planes=three_planes(voxels[..., 0], (depth, height, width)),
        maps=() if heat is None else three_planes(heat, (depth, height, width)),
        masks=three_planes(voxels[..., -1], (depth, height, width)) if has_mask else (),
    )


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


def case_picture(case: Case) -> str:
    """Return a PNG of the planes of a case, side by side, as a data URL."""
    tiles = [_to_grey(plane) for plane in case.planes]
    if case.maps:
        tiles = [_blend_map(tile, heat) for tile, heat in zip(tiles, case.maps, strict=True)]
    strip = join_planes(tiles)
    factor = max(1, -(-MIN_HEIGHT // strip.shape[0]))
    picture = np.kron(strip, np.ones((factor, factor, 1))).clip(0, 1)
    if case.masks:
        inside = join_planes([mask[..., None] for mask in case.masks])[..., 0]
        inside = np.kron(inside, np.ones((factor, factor))) > 0
        picture[inside & ~binary_erosion(inside)] = MASK_COLOUR
    return encode_png(picture)


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
