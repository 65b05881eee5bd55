"""Split-conformal prediction sets: class by class, from subjects that were used for nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np

from voxlift.app.evaluation.bootstrap import draw_subjects, subject_strata
from voxlift.app.evaluation.findings import Findings
from voxlift.app.evaluation.numbers import Numbers
from voxlift.app.evaluation.scores import (
    Fits,
    Flags,
    Floats,
    Integers,
    Predictions,
    Scores,
    as_fits,
    index_subjects,
)

CALIBRATION = "calibration"  # the split of the subjects that limits come from
RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Candidates:
    """Every label that each volume may have, with its nonconformity score: how badly it fits the prediction.

    Attributes:
        names: J names of labels.
        nonconformity: [N, J], the larger the worse the label fits.
        is_true: [N, J] whether it is the label in the table.
        choices: How many of the J labels exclude each other: all of the classes, or two of each finding.
    """

    names: tuple[str, ...]
    nonconformity: Floats
    is_true: Flags
    choices: int


@singledispatch
def list_candidates(scores: Predictions) -> Candidates:
    """Return the labels that a prediction set may hold, for each kind of predictions."""
    raise NotImplementedError(type(scores).__name__)


@list_candidates.register
def _of_classes(scores: Scores) -> Candidates:
    is_true = scores.labels[:, None] == np.arange(len(scores.classes))
    return Candidates(scores.classes, 1 - scores.probabilities, is_true, len(scores.classes))


@list_candidates.register
def _of_findings(scores: Findings) -> Candidates:
    names = tuple(f"{name}={value}" for name in scores.names for value in (0, 1))
    nonconformity = np.stack([scores.probabilities, 1 - scores.probabilities], axis=2)
    is_true = np.stack([scores.labels == 0, scores.labels == 1], axis=2)
    rows = len(scores)
    return Candidates(names, nonconformity.reshape(rows, -1), is_true.reshape(rows, -1), 2)


@list_candidates.register
def _of_a_number(scores: Numbers) -> Candidates:
    error = np.abs(scores.labels - scores.values)[:, None]
    return Candidates(("half width",), error, np.ones(error.shape, bool), 1)


def find_limits(
    nonconformity: Floats, is_true: Flags, subjects: tuple[str, ...], *, coverage: float, seed: int = 0
) -> tuple[Floats, Integers]:
    """Return the largest nonconformity that a label may have in a set [J], and the subjects it is from [J].

    Of n subjects with a label it is the k-th smallest nonconformity, k = ceil((n + 1) * coverage), so that a
    new subject with this label has it in its set with at least this probability. With k above n (below 9
    subjects at 90 %) there is no such limit: it is infinite, and the label is in every set. Of a subject with
    several volumes one is drawn.

    Args:
        nonconformity: [N, J] of the calibration volumes.
        is_true: [N, J].
        subjects: N names.
        coverage: Above 0 and below 1.
        seed: Of the draw of a subject's volume.

    Source:
        Vovk, Gammerman and Shafer 2005, doi:10.1007/b106715, sections 2.2 and 4.5 (Mondrian); Angelopoulos
        and Bates 2021, arXiv:2107.07511.
    """
    order = np.random.default_rng(seed).permutation(len(subjects))
    limits, counts = [], []
    for label in range(nonconformity.shape[1]):
        drawn = {subjects[row]: nonconformity[row, label] for row in order if is_true[row, label]}
        ordered = np.sort(np.array(list(drawn.values())))
        rank = math.ceil(round((len(ordered) + 1) * coverage, 9))
        limits.append(float(ordered[rank - 1]) if rank <= len(ordered) else math.inf)
        counts.append(len(ordered))
    return np.array(limits), np.array(counts, np.int64)


def evaluate_sets(scores: Mapping[str, Predictions], *, coverage: float) -> dict[str, Any]:
    """Return `prediction_sets` of metrics.json: limits, and how they do on the test; else nothing.

    Args:
        scores: By split; `calibration` holds the subjects that were used for nothing else.
        coverage: That is promised, above 0 and below 1.
    """
    if CALIBRATION not in scores:
        return {}
    own = scores[CALIBRATION]
    found = list_candidates(own)
    limits, counts = find_limits(found.nonconformity, found.is_true, own.subjects, coverage=coverage)
    block: dict[str, Any] = {
        "coverage": coverage,
        "subjects": len(set(own.subjects)),
        "limits": {
            name: limit if math.isfinite(limit) else None
            for name, limit in zip(found.names, limits.tolist(), strict=True)
        },
        "counts": dict(zip(found.names, counts.tolist(), strict=True)),
    }
    if "test" in scores:
        block["test"] = measure_coverage(scores["test"], read_limits(block))
    return {"prediction_sets": block}


def read_limits(block: Mapping[str, Any]) -> dict[str, float]:
    """Return the limits of a `prediction_sets` block by label; infinite where a label is in every set."""
    return {name: math.inf if limit is None else float(limit) for name, limit in block["limits"].items()}


def measure_coverage(
    scores: Predictions | Fits, limits: Mapping[str, float] | Sequence[Mapping[str, float]]
) -> dict[str, Any]:
    """Return how often sets hold the true label, with interval, over all volumes and by label, and set sizes.

    Args:
        scores: Of other subjects than those of the limits; or one for each fold and seed, whose volumes are
            counted together.
        limits: By label, for each of the scores.
    """
    fits = as_fits(scores)
    every = [limits] if isinstance(limits, Mapping) else list(limits)
    found = [list_candidates(fit) for fit in fits]
    first = found[0]
    counted = [
        one.nonconformity <= np.array([own[name] for name in one.names])
        for one, own in zip(found, every, strict=True)
    ]
    in_set, known = np.concatenate(counted), np.concatenate([one.is_true for one in found])
    covered = in_set & known
    block = _share(fits, covered.sum(axis=1), known.sum(axis=1))
    block["by_label"] = {
        name: _share(fits, covered[:, label].astype(int), known[:, label].astype(int))
        for label, name in enumerate(first.names)
        if len(first.names) > 1
    }
    if first.choices == 1:
        half = float(np.mean([own[first.names[0]] for own in every]))
        return block | {"width": 2 * half if math.isfinite(half) else None}
    sizes = in_set.reshape(len(in_set), -1, first.choices).sum(axis=2)
    counts = np.bincount(sizes.ravel(), minlength=first.choices + 1)
    return block | {
        "mean_size": float(sizes.mean()),
        "sizes": {str(size): int(count) for size, count in enumerate(counts)},
    }


def _share(fits: Fits, covered: Integers, known: Integers) -> dict[str, Any]:
    """Return the share of known labels that are covered, with its 95 % interval; None without any."""
    total, hits = int(known.sum()), int(covered.sum())
    if not total:
        return {"n": 0, "coverage": None, "interval": None}
    return {"n": total, "coverage": hits / total, "interval": _interval(fits, covered, known)}


def _interval(fits: Fits, covered: Integers, known: Integers) -> list[float]:
    """Return the exact interval of one label per subject, else that of a bootstrap over subjects.

    Source:
        Clopper and Pearson 1934, doi:10.1093/biomet/26.4.404.
    """
    names, rows = index_subjects(fits)
    row_of = np.concatenate(rows)
    if len(names) == len(row_of) and known.max() == 1:
        from scipy.stats import binomtest

        exact = binomtest(int(covered.sum()), int(known.sum())).proportion_ci(method="exact")
        return [float(exact.low), float(exact.high)]
    drawn = draw_subjects(subject_strata(fits), resamples=RESAMPLES, seed=0, block=RESAMPLES)
    weights = np.concatenate([block[:, row_of] for block in drawn])
    with np.errstate(invalid="ignore"):
        shares = (weights @ covered) / (weights @ known)
    low, high = np.nanquantile(shares, [0.025, 0.975])
    return [float(low), float(high)]
