"""Models compared on the same subjects: paired bootstrap, DeLong, McNemar, and Holm's correction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from voxlift.app.evaluation.bootstrap import Difference, model_intervals, paired_differences, point_metrics
from voxlift.app.evaluation.delong import DeLong, delong_difference
from voxlift.app.evaluation.intervals import RESAMPLES, Cells, defined, resample_models
from voxlift.app.evaluation.pairing import align_cells, subject_codes
from voxlift.app.evaluation.scores import Floats, Integers, Scores, ScoresError, shorten


@dataclass(frozen=True)
class Comparison:
    """All that is known about a pair of models.

    Attributes:
        first: Name of the first model.
        second: Name of the second; every difference is second minus first.
        differences: Metric to its paired bootstrap difference.
        delong: DeLong's test on the AUC; None for more than two classes or too few subjects of a class.
        mcnemar: McNemar's test on the decisions.
        adjusted: Holm-adjusted p-values over all pairs of one comparison, for `bootstrap` (on the primary
            metric), `delong` (where present) and `mcnemar` (mid-p).
        primary: The metric that the verdict is about.
        subjects: Number of subjects compared.
        cells: Number of folds times seeds.
        trainings: Number of seeds.
        smallest_class: Subjects of the rarest class that occurs; None where that is not known.
        level: Coverage of the intervals.
    """

    first: str
    second: str
    differences: Mapping[str, Difference]
    delong: DeLong | None
    mcnemar: McNemar
    adjusted: Mapping[str, float]
    primary: str
    subjects: int
    cells: int
    level: float
    trainings: int = 1
    smallest_class: int | None = None


def compare_models(
    models: Mapping[str, Scores | Sequence[Scores]],
    *,
    trainings: Sequence[int] | None = None,
    primary: str = "auc",
    reference: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[Comparison, ...]:
    """Compare all pairs of models, or every model with a reference, on the same subjects, folds and seeds.

    Args:
        models: Name to scores, or to one set of scores per fold and seed (in the same order for all models).
        trainings: The seed of each cell, where there are several: cells of one seed (its folds) form one
            training, and the spread between trainings counts. None: all cells are one training.
        primary: Metric of the verdict.
        reference: Name of the model that all others are compared with; None: all pairs in the order given.
        resamples: Number of resamples, the same ones for every model.
        seed: Seed of the draws.
        level: Coverage of the intervals.

    Raises:
        ScoresError: Fewer than two models, an unknown reference or metric, or models not scored on the same
            volumes.
    """
    pairs = _pairs(tuple(models), reference)
    anchor = next(iter(models.values()))
    cells = {name: align_cells(anchor, scores)[1] for name, scores in models.items()}
    drawn = resample_models(list(cells.values()), resamples=resamples, seed=seed)
    draws = dict(zip(cells, drawn, strict=True))
    points = {name: point_metrics(scores) for name, scores in cells.items()}
    _check_metric(primary, points)
    found = [
        Comparison(
            first=a,
            second=b,
            differences=paired_differences(
                (cells[a], cells[b]), (draws[a], draws[b]), trainings=trainings, level=level
            ),
            delong=_delong_or_none(cells[a], cells[b], trainings=trainings, level=level),
            mcnemar=mcnemar_test(cells[a], cells[b]),
            adjusted={},
            primary=primary,
            subjects=len({subject for cell in cells[a] for subject in cell.subjects}),
            cells=len(cells[a]),
            trainings=len(set(trainings)) if trainings else 1,
            smallest_class=_smallest_class(cells[a]),
            level=level,
        )
        for a, b in pairs
    ]
    return _with_adjusted(found)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm-adjusted p-values, in the order given: compare each with the level of the whole family.

    >>> holm([0.01, 0.04, 0.03])
    (0.03, 0.06, 0.06)

    Source: Holm 1979, https://www.jstor.org/stable/4615733.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return tuple(adjusted)


def _pairs(names: tuple[str, ...], reference: str | None) -> list[tuple[str, str]]:
    if len(names) < 2:
        raise ScoresError(f"a comparison needs two models, got {len(names)}")
    if reference is None:
        return list(combinations(names, 2))
    if reference not in names:
        raise ScoresError(f"reference {reference!r} is not among the models {', '.join(names)}")
    return [(reference, name) for name in names if name != reference]


def _check_metric(primary: str, points: Mapping[str, Mapping[str, float]]) -> None:
    missing = [name for name, values in points.items() if primary not in values]
    if missing:
        known = ", ".join(points[missing[0]])
        raise ScoresError(f"metric {primary!r} is unknown for {shorten(missing)}: expected one of {known}")


def _smallest_class(cells: Cells) -> int:
    """Subjects of the rarest class that occurs, over all folds and seeds."""
    carried = {
        (subject, int(label))
        for cell in cells
        for subject, label in zip(cell.subjects, cell.labels, strict=True)
    }
    return min(Counter(label for _, label in carried).values())


def _delong_or_none(
    first: Cells, second: Cells, *, trainings: Sequence[int] | None, level: float
) -> DeLong | None:
    """DeLong's test where it is defined: two classes, each cell with both, two subjects of each."""
    if not first[0].is_binary or any(len(set(cell.labels.tolist())) < 2 for cell in first):
        return None
    if _smallest_class(first) < 2:  # each cell has both classes
        return None
    return delong_difference(first, second, trainings=trainings, level=level)


def _with_adjusted(found: Sequence[Comparison]) -> tuple[Comparison, ...]:
    raw: dict[str, list[float]] = {
        "bootstrap": [c.differences[c.primary].p_value for c in found],
        "mcnemar": [c.mcnemar.mid_p for c in found],
    }
    tests = [c.delong for c in found]
    if all(test is not None for test in tests):
        raw["delong"] = [test.p_value for test in tests if test is not None]
    adjusted = {name: holm(values) for name, values in raw.items()}
    return tuple(
        replace(one, adjusted={name: values[index] for name, values in adjusted.items()})
        for index, one in enumerate(found)
    )


@dataclass(frozen=True)
class McNemar:
    """Counts of volumes by who decided rightly (over all cells), and two-sided p-values."""

    both_right: int
    only_first: int
    only_second: int
    both_wrong: int
    exact_p: float
    mid_p: float


def mcnemar_test(first: Scores | Sequence[Scores], second: Scores | Sequence[Scores]) -> McNemar:
    """Test whether two models decide equally often rightly; each cell decides at its own threshold.

    With one volume per subject and one cell this is McNemar's exact test and its mid-p variant (the better
    default: the exact one rejects too rarely). Otherwise each subject's surplus (volumes that only the
    second model has right minus those that only the first has, over folds and seeds) is one draw whose sign
    is arbitrary if the models are equal: the distribution of the sum over all signs is computed exactly, and
    subjects stay whole.

    Source: McNemar 1947, doi:10.1007/BF02295996; mid-p: Fagerland, Lydersen and Laake 2013,
        doi:10.1186/1471-2288-13-91.
    """
    left, right = align_cells(first, second)
    counts = np.zeros((2, 2), dtype=np.int64)
    for one, other in zip(left, right, strict=True):
        np.add.at(counts, (_is_right(one), _is_right(other)), 1)
    exact, mid = sign_flip_p(_surplus(left, right))
    return McNemar(int(counts[1, 1]), int(counts[1, 0]), int(counts[0, 1]), int(counts[0, 0]), exact, mid)


def sign_flip_p(surplus: Integers) -> tuple[float, float]:
    """Exact two-sided p and mid-p of a sum of integers whose signs are each as likely plus as minus."""
    steps = np.abs(surplus[surplus != 0])
    if not steps.size:
        return 1.0, 1.0  # nobody decides differently: half of the mass would be a mid-p of one half
    reach = int(steps.sum())
    chance: Floats = np.zeros(2 * reach + 1)
    chance[reach] = 1.0
    for step in steps:
        chance = (np.roll(chance, step) + np.roll(chance, -step)) / 2  # mass never reaches the ends early
    distance = np.abs(np.arange(-reach, reach + 1))
    observed = abs(int(surplus.sum()))
    beyond, equal = float(chance[distance > observed].sum()), float(chance[distance == observed].sum())
    return min(1.0, beyond + equal), min(1.0, beyond + equal / 2)


def _is_right(scores: Scores) -> Integers:
    right: Integers = np.asarray(scores.decisions == scores.labels).astype(np.int64)
    return right


def _surplus(left: Cells, right: Cells) -> Integers:
    count, codes = subject_codes(left)
    surplus = np.zeros(count, dtype=np.int64)
    for one, other, code in zip(left, right, codes, strict=True):
        np.add.at(surplus, code, _is_right(other) - _is_right(one))
    return surplus


def summarise_models(
    models: Mapping[str, Sequence[Scores]],
    *,
    trainings: Sequence[int] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, object]]:
    """Values over folds and seeds, with their intervals."""
    bounds = model_intervals(models, trainings=trainings, resamples=resamples, seed=seed)
    blocks: dict[str, dict[str, object]] = {}
    for name, cells in models.items():
        subjects = {subject for cell in cells for subject in cell.subjects}
        volumes = {key for cell in cells for key in cell.keys}
        blocks[name] = {key: defined(value) for key, value in point_metrics(cells).items()}
        blocks[name] |= {"n": len(volumes), "subjects": len(subjects)}
        blocks[name]["intervals"] = {
            key: [defined(low), defined(high)] for key, (low, high) in bounds[name].items()
        }
    return blocks
