"""Models compared on the same subjects: paired bootstrap, DeLong, McNemar, and Holm's correction."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from voxlift.app.evaluation.bootstrap import Difference, paired_differences, point_metrics
from voxlift.app.evaluation.delong import DeLong, delong_difference
from voxlift.app.evaluation.intervals import RESAMPLES, Cells, resample_models
from voxlift.app.evaluation.mcnemar import McNemar, mcnemar_test
from voxlift.app.evaluation.pairing import align_cells
from voxlift.app.evaluation.scores import Scores, ScoresError, shorten


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
