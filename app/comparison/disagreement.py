"""Volumes to look at in a comparison: those whose true class the models rate most differently."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from voxlift.app.evaluation.pairing import align
from voxlift.app.networks.files import load_network
from voxlift.app.runs.cases import build_case, positions_of, read_prepared
from voxlift.app.runs.cohort import reopen_cohort
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.settings import SettingsError
from voxlift.data_pipelines.volume import VolumeError

if TYPE_CHECKING:
    from voxlift.app.evaluation.scores import Scores
    from voxlift.app.report.summary import Case

log = logging.getLogger("voxlift")

SHOWN = 6


def pick_disagreements(cells: Mapping[str, Scores], runs: Mapping[str, RunFolder]) -> list[dict[str, Case]]:
    """The test volumes with the widest spread of the true class' probability over the models.

    Args:
        cells: model to its scores on the same volumes.
        runs: model to the run that gave them, whose network draws Grad-CAM over its prepared volumes.

    Returns:
        Per volume, model name to its case; nothing where the volumes are no longer there.
    """
    anchor = next(iter(cells.values()))
    aligned = {name: align(anchor, scores) for name, scores in cells.items()}
    rows = np.arange(len(anchor))
    rated = np.stack([scores.probabilities[rows, scores.labels] for scores in aligned.values()])
    spread = rated.max(axis=0) - rated.min(axis=0)
    chosen = [int(row) for row in np.argsort(-spread, kind="stable")[:SHOWN]]
    try:
        shown = {name: _cases_of(runs[name], scores, chosen) for name, scores in aligned.items()}
    except (SettingsError, VolumeError, OSError) as error:
        log.info("The page shows no cases: %s", error)  # a finished comparison is worth more than a picture
        return []
    return [{name: cases[i] for name, cases in shown.items()} for i in range(len(chosen))]


def _cases_of(run: RunFolder, scores: Scores, rows: list[int]) -> list[Case]:
    cohort, network = reopen_cohort(load_settings(run), run, split="test"), _load(run)
    positions = positions_of(cohort)
    return [
        build_case(scores, row, read_prepared(cohort, positions[scores.items[row]]), network) for row in rows
    ]


def _load(run: RunFolder) -> Any | None:  # noqa: ANN401 - Keras ships no types
    """The run's network; None where it cannot be loaded, and its cases are shown plain."""
    try:
        return load_network(run.model)
    except SettingsError as error:
        log.info("The page shows no Grad-CAM: %s", error)
        return None
