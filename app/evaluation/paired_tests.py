"""Tests of a pair of models besides the bootstrap, those that have a meaning for what is predicted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from voxlift.app.evaluation.delong import DeLong, delong_difference
from voxlift.app.evaluation.findings import Findings, compare_findings, rarest_outcome
from voxlift.app.evaluation.grades import Grades
from voxlift.app.evaluation.mcnemar import McNemar, mcnemar_test
from voxlift.app.evaluation.numbers import Numbers, Wilcoxon, wilcoxon_test
from voxlift.app.evaluation.scores import ClassFits, Fits, Scores, fits_of


@dataclass(frozen=True)
class FindingTests:
    """Tests of one finding's AUC in two models.

    Attributes:
        delong: DeLong's test on the volumes where the finding is known; None where it is undefined.
        adjusted: Holm-adjusted p-values over all findings and pairs, for `bootstrap` and `delong`.
    """

    delong: DeLong | None
    adjusted: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PairTests:
    """The tests of a pair; None where a test has no meaning. Attributes as in `paired.Comparison`."""

    delong: DeLong | None = None
    mcnemar: McNemar | None = None
    wilcoxon: Wilcoxon | None = None
    findings: Mapping[str, FindingTests] | None = None
    smallest_class: int | None = None


def pair_tests(first: Fits, second: Fits, *, fit_seeds: Sequence[int] | None, level: float) -> PairTests:
    """Return the tests of a pair of models, whose fits are aligned.

    Two classes: DeLong and McNemar; several: McNemar; findings: DeLong for each; numbers: Wilcoxon; grades:
    none besides the bootstrap.

    Args:
        first: Fits of the first model, one per fold and seed.
        second: Of the second, with the rows in the same order.
        fit_seeds: The training seed of each fit; None: all fits are of one seed.
        level: Coverage of the intervals.
    """
    if numbers := fits_of(Numbers, first, second):
        return PairTests(wilcoxon=wilcoxon_test(*numbers))
    if findings := fits_of(Findings, first, second):
        tests = compare_findings(*findings, fit_seeds=fit_seeds, level=level)
        by_name = {name: FindingTests(test) for name, test in tests.items()}
        return PairTests(findings=by_name, smallest_class=rarest_outcome(findings[0]))
    if grades := fits_of(Grades, first, second):
        return PairTests(smallest_class=smallest_class(grades[0]))
    if classes := fits_of(Scores, first, second):
        return PairTests(
            delong=_delong_or_none(*classes, fit_seeds=fit_seeds, level=level),
            mcnemar=mcnemar_test(*classes),
            smallest_class=smallest_class(classes[0]),
        )
    return PairTests()


def smallest_class(fits: ClassFits) -> int:
    """Return the number of subjects of the rarest class that occurs, over all folds and seeds."""
    labelled = {
        (subject, int(label)) for fit in fits for subject, label in zip(fit.subjects, fit.labels, strict=True)
    }
    return min(Counter(label for _, label in labelled).values())


def adjust_findings(
    tests: Sequence[Mapping[str, FindingTests] | None], bootstrap: Sequence[Mapping[str, float]]
) -> list[Mapping[str, FindingTests] | None]:
    """Return the tests per finding of each pair with p-values adjusted over all findings and pairs.

    Args:
        tests: Of each pair; None for predictions other than findings.
        bootstrap: Of each pair, metric to the p-value of its paired bootstrap.
    """
    p_values: dict[tuple[str, int, str], float] = {}
    for pair, (own, of_metrics) in enumerate(zip(tests, bootstrap, strict=True)):
        for name, test in (own or {}).items():
            p_values["bootstrap", pair, name] = of_metrics.get(f"auc[{name}]", math.nan)
            p_values["delong", pair, name] = math.nan if test.delong is None else test.delong.p_value
    adjusted: dict[tuple[str, int, str], float] = {}
    for kind in ("bootstrap", "delong"):
        keys = [key for key, value in p_values.items() if key[0] == kind and math.isfinite(value)]
        adjusted |= dict(zip(keys, holm([p_values[key] for key in keys]), strict=True))
    return [
        own and {name: replace(test, adjusted=_select(adjusted, pair, name)) for name, test in own.items()}
        for pair, own in enumerate(tests)
    ]


def _select(adjusted: Mapping[tuple[str, int, str], float], pair: int, name: str) -> dict[str, float]:
    return {key[0]: value for key, value in adjusted.items() if key[1:] == (pair, name)}


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return Holm-adjusted p-values, in the order given: compare each with the level of the whole family.

    >>> holm([0.01, 0.04, 0.03])
    (0.03, 0.06, 0.06)

    Source:
        Holm 1979, https://www.jstor.org/stable/4615733.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return tuple(adjusted)


def _delong_or_none(
    first: ClassFits, second: ClassFits, *, fit_seeds: Sequence[int] | None, level: float
) -> DeLong | None:
    """Return DeLong's test where it is defined: two classes, each fit with both, two subjects of each."""
    if not first[0].is_binary or any(len(set(fit.labels.tolist())) < 2 for fit in first):
        return None
    if smallest_class(first) < 2:
        return None
    return delong_difference(first, second, fit_seeds=fit_seeds, level=level)
