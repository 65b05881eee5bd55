"""Volumes to look at in a comparison: those whose true class the models rate most differently."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from app.runs import RunFolder
from app.settings import SettingsError, TrainSettings
from data_pipelines.volume import VolumeError

if TYPE_CHECKING:
    from app.evaluation.scores import Scores
    from app.report.summary import Case

log = logging.getLogger("voxlift")

SHOWN = 6


def pick_disagreements(
    cells: Mapping[str, Scores], run: RunFolder, settings: TrainSettings
) -> list[dict[str, Case]]:
    """The test volumes with the widest spread of the true class' probability over the models.

    Args:
        cells: model to its scores on the same volumes.
        run: one of the runs, whose prepared volumes are shown.
        settings: that run's.

    Returns:
        Per volume, model name to its case; nothing where the volumes are no longer there.
    """
    from app.evaluation.pairing import align

    anchor = next(iter(cells.values()))
    aligned = {name: align(anchor, scores) for name, scores in cells.items()}
    rows = np.arange(len(anchor))
    rated = np.stack([scores.probabilities[rows, scores.labels] for scores in aligned.values()])
    spread = rated.max(axis=0) - rated.min(axis=0)
    chosen = [int(row) for row in np.argsort(-spread, kind="stable")[:SHOWN]]
    try:
        return _build_cases(aligned, chosen, run, settings)
    except (SettingsError, VolumeError, OSError) as error:
        log.info("The page shows no cases: %s", error)  # a finished comparison is worth more than a picture
        return []


def _build_cases(
    aligned: Mapping[str, Scores], rows: list[int], run: RunFolder, settings: TrainSettings
) -> list[dict[str, Case]]:
    from app.cases import read_prepared
    from app.cohort import reopen_cohort
    from app.report.planes import three_planes

    cohort = reopen_cohort(settings, run, split="test")
    positions = {"|".join(map(str, record.images)): i for i, record in enumerate(cohort.records)}
    anchor = next(iter(aligned.values()))
    found = []
    for row in rows:
        voxels = read_prepared(cohort, positions[anchor.items[row]])[..., 0]
        depth, height, width = (side // 2 for side in voxels.shape)
        planes = three_planes(voxels, (depth, height, width))
        found.append({name: _case(scores, row, planes) for name, scores in aligned.items()})
    return found


def _case(scores: Scores, row: int, planes: list[np.ndarray]) -> Case:
    from app.report.summary import Case

    decided = int(scores.decisions[row])
    return Case(
        subject=scores.subjects[row],
        truth=scores.classes[scores.labels[row]],
        decided=scores.classes[decided],
        probability=float(scores.probabilities[row, decided]),
        planes=planes,
    )
