"""The cases that a run's page shows: the volumes that the model was surest of, and where it looked."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.explaining.maps import explain_volume
from voxlift.app.report.planes import three_planes
from voxlift.app.report.summary import Case
from voxlift.app.subjects.images import join_images

if TYPE_CHECKING:
    from voxlift.app.evaluation.scores import Scores
    from voxlift.app.subjects.cohort import Cohort

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
