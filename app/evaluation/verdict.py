"""Results as sentences that claim no more than their intervals allow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from voxlift.app.evaluation.metric_names import LOWER_IS_BETTER, interval_of, metric_in_text
from voxlift.app.evaluation.paired import Comparison, Difference
from voxlift.app.evaluation.sample_size import DifferenceVariance, required_seeds, required_subjects

CHANCE_AUC = 0.5
CHANCES = {"auc": CHANCE_AUC, "kappa_quadratic": 0.0}  # values of a model that has learnt nothing
SIGNIFICANCE_LEVEL = 0.05  # for Holm-adjusted p-values
MIN_SUBJECTS = 5  # of a class, below which resampling them shows nothing about further subjects
WORDS = ("better", "worse", "equivalent", "cannot tell")
POWERS = (0.8, 0.9)
MOST_TIMES = 20  # more subjects than there are: beyond, the spread between seeds is what forbids a decision
FEW_TESTED = 30  # subjects below which a run's page suggests folds
FOLDS_HINT = "With splits.folds=5 every subject is tested once."
FEW_SUBJECTS = 15  # of a class, below which a bootstrap interval tends to be too narrow


def run_verdict(metrics: Mapping[str, object], *, name: str, split: str = "test", unit: str = "") -> str:
    """Return a sentence that sets a run's primary metric and its interval against chance.

    A number is set against always predicting the training median.

    Args:
        metrics: Block of metrics.json for the split.
        name: Of the model.
        split: `val` or `test`.
        unit: Of a predicted number.
    """
    if "mae" in metrics:
        return _number_verdict(metrics, name=name, split=split, unit=unit)
    key, chance = ("kappa_quadratic", 0.0) if "kappa_quadratic" in metrics else ("auc", CHANCE_AUC)
    label = metric_in_text(key)
    # Several classes have an AUC each, too, but also the Matthews correlation of all, which findings lack.
    is_of_findings = "mcc" not in metrics and any(name.startswith("auc[") for name in metrics)
    is_of_findings = is_of_findings and key == "auc"
    if is_of_findings:
        label = f"mean {label} of the findings"
    value, subjects = metrics.get(key), metrics.get("subjects", metrics.get("n"))
    bounds = interval_of(metrics, key)
    if not isinstance(value, int | float) or bounds is None:
        return f"{name} has no {label} on the {split} split: the split holds a single class."
    low, high = bounds
    where = f"on {subjects} {split} subjects"
    text = f"{label} {value:.3f} (95 % interval {low:.3f} to {high:.3f}) {where}"
    if low == high:
        return (
            f"{name}: {label} {value:.3f} {where}; every resample gives {value:.3f}, so the bootstrap shows "
            "no variation; this is no proof that further subjects would score the same."
        )
    what = "agrees with the grades" if key == "kappa_quadratic" else "ranks the classes"
    what = "ranks the findings" if is_of_findings else what
    is_small = split == "test" and isinstance(subjects, int | float) and subjects < FEW_TESTED
    more = f" These are few. {FOLDS_HINT}" if is_small else ""
    if low > chance:
        return f"{name} {what} better than chance: {text}.{more}"
    if high < chance:
        return f"{name} {what} worse than chance; check for swapped labels: {text}.{more}"
    return f"Cannot tell {name} from chance: {text}.{more}"


def _number_verdict(metrics: Mapping[str, object], *, name: str, split: str, unit: str) -> str:
    """Return a sentence on the error of a number, beside that of always predicting the training median."""
    error, bounds, gain = metrics["mae"], interval_of(metrics, "mae"), interval_of(metrics, "mae_gain")
    where = f"on {metrics.get('subjects', metrics.get('n'))} {split} subjects"
    if not isinstance(error, int | float) or bounds is None:
        return f"{name} has no mean absolute error {where}."
    in_unit = f" {unit}" if unit else ""
    text = (
        f"mean absolute error {error:.3g}{in_unit} (95 % interval {bounds[0]:.3g} to {bounds[1]:.3g}) {where}"
    )
    baseline = metrics.get("baseline_mae_median")
    if gain is None or not isinstance(baseline, int | float):
        return f"{name}: {text}."
    beside = f"; always predicting the training median gives {baseline:.3g}{in_unit}"
    if gain[0] > 0:
        return f"{name} predicts better than the training median: {text}{beside}."
    if gain[1] < 0:
        return f"{name} predicts worse than the training median: {text}{beside}."
    return f"Cannot tell {name} from always predicting the training median: {text}{beside}."


@dataclass(frozen=True)
class Verdict:
    """The verdict on the second model of a pair, compared with the first; keys of comparison.json.

    Attributes:
        verdict: `better`, `worse`, `equivalent` or `cannot tell`.
        by_less_than_matters: Whether it is better or worse, and the whole interval is below the margin.
        more_subjects: About how many more subjects are needed; None where it is not `cannot tell`, where the
            spread between seeds forbids it, or where the spread is unknown.
        more_seeds: Where that spread forbids it: about how many more seeds are needed.
        power: The probability that a difference of the margin is then found.
    """

    verdict: str
    by_less_than_matters: bool = False
    more_subjects: int | None = None
    more_seeds: int | None = None
    power: float | None = None

    @property
    def text(self) -> str:
        """The word, with `by less than matters`, or with about how many more subjects or seeds."""
        return f"{self.verdict}{self.remark}"

    @property
    def remark(self) -> str:
        """What follows the word: that the difference does not matter, or what is missing for a decision."""
        if self.by_less_than_matters:
            return ", by less than matters"
        if self.more_subjects is not None:
            return f" (about {_count(self.more_subjects, 'subject')})"
        return f" (about {_count(self.more_seeds, 'seed')})" if self.more_seeds is not None else ""


def decide(compared: Comparison) -> Verdict:
    """Return the verdict on a pair of models in one of four words, from the interval of the difference.

    `better` where the 95 % interval is above 0, `worse` where it is below; else `equivalent` where the 90 %
    interval lies within the margin; else `cannot tell`. With several pairs the Holm-adjusted p-value of the
    test (of a difference, or of equivalence) must be below 0.05 as well. With fewer than five subjects of a
    class nothing is decided. Where no resample shows a difference, an interval of zero width would mean that
    no further subject can differ: there the rule of three bounds the share of such subjects by 3 / n.

    Source:
        Schuirmann 1987, doi:10.1007/BF01068419; rule of three: Hanley and Lippman-Hand 1983,
        doi:10.1001/jama.1983.03330370053031; Holm 1979, https://www.jstor.org/stable/4615733.
    """
    found = compared.differences[compared.primary]
    if not math.isfinite(found.difference) or has_too_few_subjects(compared):
        return Verdict("cannot tell")
    sign = _sign(compared)
    low, high = sorted((sign * found.low, sign * found.high))
    if (low > 0 or high < 0) and _passes_holm(compared, "bootstrap"):
        is_small = max(abs(low), abs(high)) < compared.margin
        return Verdict("better" if low > 0 else "worse", by_less_than_matters=is_small)
    if _is_within_margin(compared, found) and _passes_holm(compared, "equivalence"):
        return Verdict("equivalent")
    return _plan_more(compared, found)


def _is_within_margin(compared: Comparison, found: Difference) -> bool:
    """Return whether the interval of the equivalence test lies within the margin."""
    if found.low == found.high == 0:
        return 3 / (compared.smallest_class or compared.subjects) < compared.margin
    return -compared.margin < found.equivalence_low and found.equivalence_high < compared.margin


def _passes_holm(compared: Comparison, test: str) -> bool:
    """Return whether a test holds over all pairs; for a single pair its interval is the test."""
    return compared.pairs == 1 or compared.adjusted.get(test, math.nan) < SIGNIFICANCE_LEVEL


def _plan_more(compared: Comparison, found: Difference) -> Verdict:
    """Return `cannot tell` with the subjects or seeds that would show a difference as large as the margin.

    The power is 80 %; where these subjects have it already, 90 %, or that with which every true difference
    ends in one of the other words.
    """
    seeds, subjects = compared.trainings, compared.subjects
    if found.low == found.high == 0:
        needed_in_all = math.ceil(subjects * 3 / (compared.margin * (compared.smallest_class or subjects)))
        return Verdict("cannot tell", more_subjects=_round_up(max(1, needed_in_all + 1 - subjects)))
    if not (math.isfinite(found.subject_error) and found.subject_error > 0):
        return Verdict("cannot tell")
    between = found.seed_error**2 * seeds
    variance = DifferenceVariance(found.subject_error**2 * subjects, between, seeds)
    alpha = SIGNIFICANCE_LEVEL / compared.pairs
    for power in (*POWERS, 1 - alpha):
        needed = required_subjects(variance, compared.margin, power=power, alpha=alpha)
        if needed is None or (seeds > 1 and needed > MOST_TIMES * subjects):
            enough = required_seeds(variance, compared.margin, power=power, alpha=alpha)
            more = None if enough is None else _round_up(max(1, enough - seeds))
            return Verdict("cannot tell", more_seeds=more, power=power)
        if needed > subjects:
            return Verdict("cannot tell", more_subjects=_round_up(needed - subjects), power=power)
    return Verdict("cannot tell")


def comparison_verdict(compared: Comparison) -> str:
    """Return one to three sentences on a pair of models: the verdict, its numbers, and what limits it."""
    label, size = _label(compared), _size(compared)
    first, second = compared.first, compared.second
    difference = compared.differences[compared.primary]
    if not math.isfinite(difference.difference):
        return f"{label} is undefined for {first} or {second} on these subjects."
    if has_too_few_subjects(compared):
        values = f"{label} is {difference.first:.3f} and {difference.second:.3f}"
        too_few = f"Cannot tell {second} from {first}: {size} are too few{_rarest(compared)}. {values}."
        return " ".join([too_few, *_suggest_folds(compared)])
    found = decide(compared)
    statement = _statement(found, compared)
    opening = (
        "C" + statement[1:] if found.verdict == "cannot tell" else statement
    )  # a model's name stays as it is
    small = ", by less than matters" if found.by_less_than_matters else ""
    sentences = [f"{opening} by {label} on {size}{small}: {_numbers(found, compared)}."]
    sentences += [more] if (more := describe_more(found, compared)) else []
    return " ".join([*sentences, *_cautions(compared)])


def describe_chance(blocks: Mapping[str, Mapping[str, object]], primary: str) -> str:
    """Return a sentence where no model of a comparison is shown to be better than chance; else nothing.

    Args:
        blocks: Model to its block of metrics.json.
        primary: The metric of the verdict.
    """
    chance = CHANCES.get(primary)
    bounds = [interval_of(block, primary) for block in blocks.values()]
    if chance is None or not bounds or any(pair is None or pair[0] > chance for pair in bounds):
        return ""
    label = metric_in_text(primary)
    return (
        f"No model is shown to be better than chance: no 95 % interval of the {label} lies wholly above "
        f"{chance:g}. A difference between them says little."
    )


def overall_verdict(compared: Sequence[Comparison]) -> str:
    """Return the verdict of a whole comparison: one pair in full, or a word for each of several pairs."""
    if len(compared) == 1:
        return comparison_verdict(compared[0])
    verdicts = [(one, decide(one)) for one in compared]
    parts = []
    for word in WORDS:
        of_word = [(one, found) for one, found in verdicts if found.verdict == word]
        parts += [f"{_statement(found, one)}{found.remark}" for one, found in of_word]
    first = compared[0]
    sentence = (
        f"By {_label(first)} on {_size(first)}, adjusted for {len(compared)} pairs: {'; '.join(parts)}."
    )
    cautions = dict.fromkeys(caution for one in compared for caution in _cautions(one))
    return " ".join([sentence, *cautions])


def short_verdict(compared: Comparison) -> str:
    """Return the verdict on the second model of a pair for a table.

    Returns:
        One of the four words, with `by less than matters`, or with about how many more subjects or seeds.
    """
    return decide(compared).text


def describe_more(found: Verdict, compared: Comparison) -> str:
    """Return a sentence on the subjects or seeds that are missing; empty where the verdict is not that."""
    if found.verdict != "cannot tell" or (found.power is None and found.more_subjects is None):
        return ""
    if found.power is None:
        return f"About {found.more_subjects} more subjects without a difference would make them equivalent."
    aim = f"to find a difference of {compared.margin:.3g} with {100 * found.power:.0f} % power"
    if found.more_subjects is not None:
        return f"About {_need(found.more_subjects, 'subject')} {aim}."
    seeds = f"about {_need(found.more_seeds, 'seed')}" if found.more_seeds else "far more seeds are needed"
    return f"The spread between seeds forbids it for any number of subjects within reach: {seeds} {aim}."


def _count(number: int, noun: str) -> str:
    return f"{number} more {noun}{'' if number == 1 else 's'}"


def _need(number: int, noun: str) -> str:
    return f"{_count(number, noun)} {'is' if number == 1 else 'are'} needed"


def format_p_value(value: float) -> str:
    """Return a p-value in its usual form; a dash for nan.

    >>> format_p_value(0.0004), format_p_value(0.0312)
    ('< 0.001', '0.031')
    """
    if not math.isfinite(value):
        return "\N{EN DASH}"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def describe_p_value(value: float) -> str:
    """Return a p-value with its letter, for a sentence.

    >>> describe_p_value(0.0004), describe_p_value(0.0312)
    ('p < 0.001', 'p = 0.031')
    """
    text = format_p_value(value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def _statement(found: Verdict, compared: Comparison) -> str:
    """Return who is better, worse or equivalent, without the metric."""
    first, second = compared.first, compared.second
    if found.verdict == "cannot tell":
        return f"cannot tell {second} from {first}"
    if found.verdict == "equivalent":
        return f"{second} is equivalent to {first}"
    return f"{second} is {found.verdict} than {first}"


def _numbers(found: Verdict, compared: Comparison) -> str:
    """Return the difference with the interval that decides, and the p-value where a difference is found."""
    one = compared.differences[compared.primary]
    if one.low == one.high == 0:
        return f"both have {one.first:.3f} in every resample, so these subjects show no difference"
    difference = _signed(one.difference)
    if found.verdict == "equivalent":
        level = f"{(2 * compared.level - 1) * 100:g} % interval"
        interval = f"{level} {_signed(one.equivalence_low)} to {_signed(one.equivalence_high)}"
        return f"{difference} ({interval}, within the margin of {compared.margin:.3g})"
    interval = f"{compared.level * 100:g} % interval {_signed(one.low)} to {_signed(one.high)}"
    return f"{difference} ({interval}, {describe_p_value(compared.adjusted['bootstrap'])})"


def _round_up(count: int) -> int:
    """Return a number of subjects rounded up to two digits, which is as much as is known of it.

    >>> _round_up(7), _round_up(123), _round_up(4567)
    (7, 130, 4600)
    """
    step = int(10 ** max(0, len(str(count)) - 2))
    return -(-count // step) * step


def _sign(compared: Comparison) -> int:
    """Return -1 where lower values of the primary metric are better, else 1."""
    return -1 if compared.primary.partition("[")[0] in LOWER_IS_BETTER else 1


def _cautions(compared: Comparison) -> list[str]:
    """Return what limits the result: few subjects of a class, and a single seed behind a decision."""
    sentences = []
    if _smallest_group(compared) < FEW_SUBJECTS:
        of = "There are" if compared.smallest_class is None else f"The rarest {_noun(compared)} has"
        count = compared.subjects if compared.smallest_class is None else compared.smallest_class
        sentences.append(f"{of} only {count} subjects: the interval is approximate.")
        sentences += _suggest_folds(compared)
    if compared.trainings == 1 and decide(compared).verdict != "cannot tell":
        sentences.append(
            "Each model was trained with one seed: the interval does not include the variation between seeds."
        )
    return sentences


def _suggest_folds(compared: Comparison) -> list[str]:
    """Return how to test more subjects, where each model was trained once."""
    return [FOLDS_HINT] if compared.cells == 1 and not compared.is_external else []


def has_too_few_subjects(compared: Comparison) -> bool:
    """Return whether a class has too few subjects for any verdict, and so for any p-value."""
    return _smallest_group(compared) < MIN_SUBJECTS


def shown_p_value(compared: Comparison, adjusted: Mapping[str, float] | None = None) -> float:
    """Return the adjusted p-value of a pair for a table; nan below a verdict refused for few subjects.

    Args:
        compared: The pair.
        adjusted: The p-values of one of its findings; None: of the pair.
    """
    if has_too_few_subjects(compared):
        return math.nan
    return (compared.adjusted if adjusted is None else adjusted).get("bootstrap", math.nan)


def _smallest_group(compared: Comparison) -> float:
    """Return the subjects of the rarest class, of a number half of all; infinity where that is unknown."""
    if compared.smallest_class is not None:
        return compared.smallest_class
    return compared.subjects / 2 if compared.wilcoxon is not None else math.inf


def _rarest(compared: Comparison) -> str:
    if compared.smallest_class is None:
        return ""
    return f", the rarest {_noun(compared)} has only {compared.smallest_class}"


def _noun(compared: Comparison) -> str:
    if compared.findings is not None:
        return "outcome of a finding"
    return "grade" if compared.primary == "kappa_quadratic" else "class"


def _label(compared: Comparison) -> str:
    return metric_in_text(compared.primary, compared.unit)


def _size(compared: Comparison) -> str:
    fits = f", {compared.cells} trainings of each" if compared.cells > 1 else ""
    return f"{compared.subjects} subjects{fits}"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")
