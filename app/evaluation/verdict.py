"""Results as sentences that claim no more than their intervals allow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from voxlift.app.evaluation.metrics import LOWER_IS_BETTER, metric_label
from voxlift.app.evaluation.paired import Comparison, Difference

CHANCE_AUC = 0.5
SIGNIFICANCE_LEVEL = 0.05  # for Holm-adjusted p-values
MIN_SUBJECTS = 5  # of a class, below which resampling them shows nothing about further subjects
FEW_SUBJECTS = 15  # of a class, below which a bootstrap interval tends to be too narrow


def run_verdict(metrics: Mapping[str, object], *, name: str, split: str = "test") -> str:
    """Return a sentence that sets a run's AUC and its interval against chance.

    Args:
        metrics: Block of metrics.json for the split.
        name: Of the model.
        split: `val` or `test`.
    """
    auc, subjects = metrics.get("auc"), metrics.get("subjects", metrics.get("n"))
    bounds = _interval_of(metrics, "auc")
    if not isinstance(auc, int | float) or bounds is None:
        return f"{name} has no ROC AUC on the {split} split: the split holds a single class."
    low, high = bounds
    where = f"on {subjects} {split} subjects"
    value = f"ROC AUC {auc:.3f} (95 % interval {low:.3f} to {high:.3f}) {where}"
    if low == high:
        return (
            f"{name}: ROC AUC {auc:.3f} {where}; every resample gives {auc:.3f}, so the bootstrap shows no "
            "variation; this is no proof that further subjects would score the same."
        )
    if low > CHANCE_AUC:
        return f"{name} ranks the classes better than chance: {value}."
    if high < CHANCE_AUC:
        return f"{name} ranks the classes worse than chance; check for swapped labels: {value}."
    return f"{name} is not significantly better than chance: {value}."


def comparison_verdict(compared: Comparison) -> str:
    """Return one to three sentences on a pair of models.

    A model is called better only where the interval of the primary metric's difference excludes 0 and
    the Holm-adjusted p-value of the bootstrap is below 0.05, and only with at least five subjects of each
    class. Added are: how large a difference remains possible, a DeLong test that disagrees, and that models
    trained with one seed are two networks rather than two kinds of network.
    """
    difference = compared.differences[compared.primary]
    if not math.isfinite(difference.difference):
        label = _label(compared)
        return f"{label} is undefined for {compared.first} or {compared.second} on these subjects."
    sentences = [_difference_sentence(compared, difference)]
    if not _has_too_few_subjects(compared):
        if _tests_disagree(compared):
            p_value = _p_equals(compared.adjusted["delong"])
            sentences.append(f"DeLong's test disagrees (p {p_value}): the result is inconclusive.")
        sentences += _cautions(compared)
    return " ".join(sentences)


def overall_verdict(compared: Sequence[Comparison]) -> str:
    """Return the verdict of a whole comparison: one pair in full, or which models outperform which."""
    if len(compared) == 1:
        return comparison_verdict(compared[0])
    winners = [(one, better_model(one)) for one in compared]
    wins = [f"{better} outperforms {_other(one, better)}" for one, better in winners if better]
    undecided = [f"{one.first} and {one.second}" for one, better in winners if not better]
    label, size = _label(compared[0]), _size(compared[0])
    if wins:
        sentences = [f"By {label} on {size}, {_join(wins)} (Holm-adjusted for {len(compared)} pairs)."]
        if undecided:
            sentences.append(f"No significant difference: {'; '.join(undecided)}.")
    else:
        sentences = [f"No pair of models differs significantly in {label} on {size}."]
    disagreeing = [f"{one.first} and {one.second}" for one in compared if _tests_disagree(one)]
    if disagreeing:
        sentences.append(f"DeLong's test disagrees on {_join(disagreeing)}: these results are inconclusive.")
    cautions = dict.fromkeys(sentence for one in compared for sentence in _cautions(one))
    return " ".join([*sentences, *cautions])


def better_model(compared: Comparison) -> str | None:
    """Return the name of the model that is shown to be better; None where the data show no difference."""
    difference = compared.differences[compared.primary]
    excludes_zero = difference.low > 0 or difference.high < 0
    if not excludes_zero or _has_too_few_subjects(compared):
        return None
    if not compared.adjusted["bootstrap"] < SIGNIFICANCE_LEVEL:
        return None
    is_second = (difference.difference > 0) != (compared.primary in LOWER_IS_BETTER)
    return compared.second if is_second else compared.first


def format_p_value(value: float) -> str:
    """Return a p-value in its usual form.

    >>> format_p_value(0.0004), format_p_value(0.0312)
    ('< 0.001', '0.031')
    """
    if not math.isfinite(value):
        return "undefined"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _difference_sentence(compared: Comparison, difference: Difference) -> str:
    first, second, label, size = compared.first, compared.second, _label(compared), _size(compared)
    better = better_model(compared)
    if better is not None:
        sign = 1 if better == second else -1  # the gain of the better model
        low, high = sorted((sign * difference.low, sign * difference.high))
        return (
            f"{better} outperforms {_other(compared, better)} in {label}: "
            f"{_signed(sign * difference.difference)} ({_interval(compared, low, high)}, "
            f"p {_p_equals(compared.adjusted['bootstrap'])}) on {size}."
        )
    if _has_too_few_subjects(compared):
        return (
            f"{size} are too few to compare {first} and {second}: the rarest class has only "
            f"{compared.smallest_class}. {label} is {difference.first:.3f} and {difference.second:.3f}."
        )
    if difference.low == difference.high == 0:
        return (
            f"{first} and {second} have the same {label}, {difference.first:.3f}, in every resample of "
            f"{size}: these subjects show no difference."
        )
    possible = max(abs(difference.low), abs(difference.high))
    interval = _interval(compared, difference.low, difference.high)
    return (
        f"No significant difference in {label} between {first} and {second} on {size}: {second} minus "
        f"{first} is {_signed(difference.difference)} ({interval}), so a difference of up to {possible:.3f} "
        "remains possible."
    )


def _tests_disagree(compared: Comparison) -> bool:
    """Return whether DeLong's test comes to another result than the bootstrap."""
    adjusted = compared.adjusted.get("delong")
    if adjusted is None or compared.primary != "auc":
        return False
    return (better_model(compared) is not None) != (adjusted < SIGNIFICANCE_LEVEL)


def _cautions(compared: Comparison) -> list[str]:
    """Return what limits the result: few subjects of a class, and a single seed behind a better model."""
    sentences = []
    if compared.smallest_class is not None and compared.smallest_class < FEW_SUBJECTS:
        sentences.append(
            f"The rarest class has only {compared.smallest_class} subjects: the interval is approximate."
        )
    if compared.trainings == 1 and better_model(compared) is not None:
        sentences.append(
            "Each model was trained with one seed: the interval does not include the variation between seeds."
        )
    return sentences


def _has_too_few_subjects(compared: Comparison) -> bool:
    return compared.smallest_class is not None and compared.smallest_class < MIN_SUBJECTS


def _label(compared: Comparison) -> str:
    label = metric_label(compared.primary)
    return label if label.isupper() or label.startswith(("ROC", "F1")) else label.lower()


def _size(compared: Comparison) -> str:
    fits = f", {compared.cells} trainings of each" if compared.cells > 1 else ""
    return f"{compared.subjects} subjects{fits}"


def _interval(compared: Comparison, low: float, high: float) -> str:
    return f"{compared.level * 100:g} % interval {_signed(low)} to {_signed(high)}"


def _other(compared: Comparison, name: str) -> str:
    return compared.first if name == compared.second else compared.second


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def _p_equals(value: float) -> str:
    text = format_p_value(value)
    return text if text.startswith("<") else f"= {text}"


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _interval_of(metrics: Mapping[str, object], name: str) -> tuple[float, float] | None:
    intervals = metrics.get("intervals")
    pair = intervals.get(name) if isinstance(intervals, Mapping) else None
    if not pair or pair[0] is None or pair[1] is None:
        return None
    return float(pair[0]), float(pair[1])
