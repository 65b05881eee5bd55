"""Models compared on the same subjects: paired bootstrap, DeLong, McNemar, and Holm's correction."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from app.evaluation.delong import DeLong, delong_difference
from app.evaluation.intervals import RESAMPLES, Cells, mean_of_cells, percentile_interval, resample_models
from app.evaluation.mcnemar import McNemar, mcnemar_test
from app.evaluation.metrics import metric_draws
from app.evaluation.pairing import align_cells, as_cells
from app.evaluation.scores import Floats, Scores, ScoresError, shorten
from app.evaluation.trainings import widen_draws

UNBOUNDED = frozenset({"log_loss", "brier"})  # the Brier score of several classes reaches 2


@dataclass(frozen=True)
class Difference:
    """A metric of two models, and their difference (second minus first) with interval and p-value."""

    metric: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float


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


def paired_bootstrap(
    first: Scores | Sequence[Scores],
    second: Scores | Sequence[Scores],
    *,
    trainings: Sequence[int] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Difference]:
    """Difference of every metric, second minus first, by resampling subjects once for both models.

    Folds and seeds: a metric is the mean over cells (pooling the out-of-fold scores of differently calibrated
    models would bias an AUC), and a subject drawn is drawn in all cells alike. Where `trainings` tells the
    cells of several seeds apart, the spread between their differences widens the draws (`widen_draws`). The
    p-value is twice the smaller share of resamples on either side of 0, with one added to both counts, so
    never below 2 / (resamples + 1).

    Source: Efron and Tibshirani 1993, ISBN 978-0412042317; averaging folds: Forman and Scholz 2010,
        doi:10.1145/1882471.1882479.
    """
    pair = align_cells(first, second)
    draws = resample_models(pair, resamples=resamples, seed=seed)
    return _differences(pair, draws, trainings=trainings, level=level)


def point_metrics(scores: Scores | Sequence[Scores]) -> dict[str, float]:
    """Every metric of one model, averaged over its folds and seeds."""
    values = mean_of_cells([metric_draws(cell, np.ones((1, len(cell)))) for cell in as_cells(scores)])
    return {name: float(value[0]) for name, value in values.items()}


def model_intervals(
    models: Mapping[str, Scores | Sequence[Scores]],
    *,
    trainings: Sequence[int] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, dict[str, tuple[float, float]]]:
    """Intervals of every metric per model, over folds and seeds: name -> metric -> (low, high).

    Arguments are those of `paired_bootstrap`; intervals end where the metric does (0 or -1, and 1).
    """
    cells = {name: as_cells(scores) for name, scores in models.items()}
    draws = resample_models(list(cells.values()), resamples=resamples, seed=seed)
    return {
        name: _intervals(cells[name], drawn, trainings=trainings, level=level)
        for name, drawn in zip(cells, draws, strict=True)
    }


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
            differences=_differences(
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


def _differences(
    pair: Sequence[Cells],
    draws: Sequence[Mapping[str, Floats]],
    *,
    trainings: Sequence[int] | None,
    level: float,
) -> dict[str, Difference]:
    points = [point_metrics(cells) for cells in pair]
    by_training = [metrics_by_training(cells, trainings) for cells in pair]
    found = {}
    for metric in points[0]:
        if metric not in points[1]:
            continue  # `accuracy@0.5` exists only where a threshold was chosen
        first, second = points[0][metric], points[1][metric]
        each = [after[metric] - before[metric] for before, after in zip(*by_training, strict=True)]
        spread = widen_draws(draws[1][metric] - draws[0][metric], second - first, each, level=level)
        reach = np.inf if metric in UNBOUNDED else 2.0 if metric == "mcc" else 1.0
        low, high = percentile_interval(np.clip(spread, -reach, reach), level)
        found[metric] = Difference(metric, first, second, second - first, low, high, _two_sided(spread))
    return found


def _intervals(
    cells: Cells, draws: Mapping[str, Floats], *, trainings: Sequence[int] | None, level: float
) -> dict[str, tuple[float, float]]:
    point, by_training = point_metrics(cells), metrics_by_training(cells, trainings)
    found = {}
    for metric, values in draws.items():
        widened = widen_draws(values, point[metric], [each[metric] for each in by_training], level=level)
        least = -1.0 if metric == "mcc" else 0.0
        most = np.inf if metric in UNBOUNDED else 1.0
        low, high = percentile_interval(np.clip(widened, least, most), level)
        found[metric] = (low, high)
    return found


def metrics_by_training(cells: Cells, trainings: Sequence[int] | None) -> list[dict[str, float]]:
    """Every metric of each training: the means over its folds, trainings in the order of their seeds."""
    seeds = trainings if trainings is not None else [0] * len(cells)
    groups = sorted(set(seeds))
    return [
        point_metrics([cell for cell, own in zip(cells, seeds, strict=True) if own == group])
        for group in groups
    ]


def _two_sided(spread: Floats) -> float:
    known = spread[np.isfinite(spread)]
    if not len(known):
        return float("nan")
    below, above = int((known <= 1e-12).sum()), int((known >= -1e-12).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (len(known) + 1))


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
