"""Results in words that say no more than their intervals allow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from voxlift.app.evaluation.bootstrap import Difference
from voxlift.app.evaluation.metrics import LOWER_IS_BETTER, metric_label
from voxlift.app.evaluation.paired import Comparison

CHANCE = {"auc": 0.5}
SIGNIFICANT = 0.05
FEWEST = 5  # subjects of a class, below which resampling them says nothing of further ones
FEW = 15  # below which a bootstrap interval tends to be too narrow


def comparison_verdict(found: Comparison) -> str:
    """One to three sentences on a pair of models, from the primary metric's interval and adjusted p-values.

    A model is called better only where the interval of the difference excludes 0 and the Holm-adjusted
    p-value of the bootstrap is below 0.05, and only with at least five subjects of each class. What else is
    known is added: how large a difference the data
    leave possible, a DeLong test that disagrees, and that models trained once are two networks, not two
    kinds of network.
    """
    difference = found.differences[found.primary]
    if not math.isfinite(difference.difference):
        return f"{_label(found)} is undefined for {found.first} or {found.second} on these subjects."
    return " ".join(part for part in (_decision(found, difference), *_reservations(found)) if part)


def winner(found: Comparison) -> str | None:
    """The name of the model that is shown to be better; None where the data do not tell."""
    difference = found.differences[found.primary]
    excludes = (difference.low > 0 or difference.high < 0) and not _is_too_small(found)
    if not excludes or not found.adjusted["bootstrap"] < SIGNIFICANT:
        return None
    second_is_better = (difference.difference > 0) != (found.primary in LOWER_IS_BETTER)
    return found.second if second_is_better else found.first


def overall_verdict(found: Sequence[Comparison]) -> str:
    """The verdict of a whole comparison: one pair in full, several pairs as who is shown to beat whom."""
    if len(found) == 1:
        return comparison_verdict(found[0])
    settled = [(one, winner(one)) for one in found]
    beaten = [f"{better} over {_other(one, better)}" for one, better in settled if better]
    open_pairs = [f"{one.first} and {one.second}" for one, better in settled if not better]
    label = _label(found[0])
    first = (
        f"{label}, over {_size(found[0])}, shows {_listed(beaten)} (Holm-corrected for {len(found)} pairs)."
        if beaten
        else f"No pair of models can be told apart by {label} on {_size(found[0])}."
    )
    if beaten and open_pairs:
        first = f"{first} Not told apart: {'; '.join(open_pairs)}."
    doubted = [f"{one.first} and {one.second}" for one in found if _doubt(one)]
    doubts = f"DeLong's test disagrees on {_listed(doubted)}: unsettled." if doubted else ""
    scope = next((_scope(one) for one in found if _scope(one)), "")
    return " ".join(part for part in (first, doubts, _smallness(found[0]), scope) if part)


def run_verdict(metrics: Mapping[str, object], *, name: str, split: str = "test") -> str:
    """What a run's AUC and its interval say about chance, from its block of metrics.json."""
    auc, subjects = metrics.get("auc"), metrics.get("subjects", metrics.get("n"))
    bounds = _bounds(metrics, "auc")
    if not isinstance(auc, int | float) or bounds is None:
        return f"{name} has no ROC AUC on the {split} split: it holds a single class."
    low, high = bounds
    where = f"on {subjects} {split} subjects"
    figure = f"ROC AUC {auc:.3f} (95 % interval {low:.3f} to {high:.3f}) {where}"
    if low == high:
        return f"{name}: ROC AUC {auc:.3f} {where}; {collapse_note(auc)}"
    if low > CHANCE["auc"]:
        return f"{name} ranks the classes better than chance: {figure}."
    if high < CHANCE["auc"]:
        return f"{name} ranks the classes worse than chance, so look for swapped labels: {figure}."
    return f"{name} is not shown to rank the classes better than chance: {figure}."


def collapse_note(value: float) -> str:
    """Why an interval has no width, and what that does not mean."""
    return (
        f"every resample gives {value:.3f}, so the bootstrap sees no spread; "
        "this is no proof that further subjects would score the same."
    )


def format_p(value: float) -> str:
    """A p-value as a reader expects it.

    >>> format_p(0.0004), format_p(0.0312)
    ('< 0.001', '0.031')
    """
    if not math.isfinite(value):
        return "undefined"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _decision(found: Comparison, difference: Difference) -> str:
    better = winner(found)
    if better is not None:
        return _better(found, difference, better)
    if _is_too_small(found):
        values = f"{difference.first:.3f} and {difference.second:.3f}"
        return (
            f"{found.first} and {found.second} cannot be told apart on {_size(found)}: "
            f"the rarest class has only {found.smallest_class}. {_label(found)} is {values}."
        )
    if difference.low == difference.high == 0:
        return (
            f"{found.first} and {found.second} have the same {_label(found)}, {difference.first:.3f}, "
            f"in every resample of {_size(found)}: these subjects cannot tell them apart."
        )
    possible = max(abs(difference.low), abs(difference.high))
    return (
        f"{found.first} and {found.second} are not told apart by {_label(found)} on {_size(found)}: "
        f"{found.second} minus {found.first} is {_signed(difference.difference)} "
        f"({_interval(found, difference.low, difference.high)}), so a difference of up to {possible:.3f} "
        "remains possible."
    )


def _better(found: Comparison, difference: Difference, better: str) -> str:
    """The gain from the winner's side: its metric minus the other's."""
    sign = 1 if better == found.second else -1
    low, high = sorted((sign * difference.low, sign * difference.high))
    return (
        f"{better} beats {_other(found, better)} in {_label(found)}: {_signed(sign * difference.difference)} "
        f"({_interval(found, low, high)}, p {_p_equals(found.adjusted['bootstrap'])}) on {_size(found)}."
    )


def _interval(found: Comparison, low: float, high: float) -> str:
    return f"{found.level * 100:g} % interval {_signed(low)} to {_signed(high)}"


def _doubt(found: Comparison) -> str:
    """A sentence where the second test, DeLong's, comes out on the other side."""
    adjusted = found.adjusted.get("delong")
    if adjusted is None or found.primary != "auc":
        return ""
    better = winner(found) is not None
    if better == (adjusted < SIGNIFICANT):
        return ""
    return f"DeLong's test disagrees (p {_p_equals(adjusted)}): take this as unsettled."


def _reservations(found: Comparison) -> tuple[str, ...]:
    """What a reader must hold against the decision."""
    if _is_too_small(found):
        return ()
    return _doubt(found), _smallness(found), _scope(found)


def _is_too_small(found: Comparison) -> bool:
    return found.smallest_class is not None and found.smallest_class < FEWEST


def _smallness(found: Comparison) -> str:
    if found.smallest_class is None or found.smallest_class >= FEW:
        return ""
    return f"The rarest class has only {found.smallest_class} subjects: the interval is rough."


def _scope(found: Comparison) -> str:
    """What a single seed leaves open, where a model is called better."""
    if found.trainings > 1 or winner(found) is None:
        return ""
    return "Each was trained with one seed: how far another would change this is not in the interval."


def _label(found: Comparison) -> str:
    label = metric_label(found.primary)
    return label if label.isupper() or label.startswith(("ROC", "F1")) else label.lower()


def _size(found: Comparison) -> str:
    cells = f", {found.cells} trainings of each" if found.cells > 1 else ""
    return f"{found.subjects} subjects{cells}"


def _other(found: Comparison, name: str) -> str:
    return found.first if name == found.second else found.second


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def _p_equals(value: float) -> str:
    text = format_p(value)
    return text if text.startswith("<") else f"= {text}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _bounds(metrics: Mapping[str, object], name: str) -> tuple[float, float] | None:
    intervals = metrics.get("intervals")
    pair = intervals.get(name) if isinstance(intervals, Mapping) else None
    if not pair or pair[0] is None or pair[1] is None:
        return None
    return float(pair[0]), float(pair[1])
