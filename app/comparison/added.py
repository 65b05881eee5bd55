"""What images and columns of the table add to each other, from the models that take one of them, or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from voxlift.app.comparison.trial import Trial
from voxlift.app.config import ModelSettings
from voxlift.app.evaluation.metric_names import metric_label
from voxlift.app.evaluation.paired import Comparison
from voxlift.app.evaluation.scores import Predictions
from voxlift.app.evaluation.verdict import Verdict, decide
from voxlift.app.inference.ablation import ALL_INPUTS, summarise_ablation
from voxlift.app.report.tables import format_interval, format_signed
from voxlift.app.runs.results import read_ablation

ANSWERS = {"better": "yes", "worse": "no, it is worse", "equivalent": "no", "cannot tell": "cannot tell"}
FLIPPED = {"better": "worse", "worse": "better"}


@dataclass(frozen=True)
class AddedInput:
    """Whether an input adds to the other one.

    Attributes:
        adds: `image` or `table`: the input that one of the models lacks.
        model: Of both inputs.
        without: The model of the other input alone.
        verdict: On the model of both.
        difference: Of the primary metric: `model` minus `without`.
        low: Lower end of its interval.
        high: Upper end.
        metric: The primary metric.
    """

    adds: str
    model: str
    without: str
    verdict: Verdict
    difference: float
    low: float
    high: float
    metric: str

    @property
    def sentence(self) -> str:
        """The answer, with the difference that it is based on."""
        other = "table" if self.adds == "image" else "image"
        answer = f"{ANSWERS[self.verdict.verdict].capitalize()}{self.verdict.remark}"
        return (
            f"Does the {self.adds} add to the {other}? {answer}: {self.model} minus {self.without}, "
            f"{metric_label(self.metric)} {format_signed(self.difference)} "
            f"{format_interval(self.low, self.high)}."
        )


def find_added(pairs: Sequence[Comparison], models: Mapping[str, ModelSettings]) -> list[AddedInput]:
    """Return what each input adds, for each pair of a model of both and the same model of one.

    Args:
        pairs: Of all models.
        models: Settings of each model.
    """
    found = []
    for pair in pairs:
        for joined, other in ((pair.second, pair.first), (pair.first, pair.second)):
            adds = _name_added(models[joined], models[other])
            if adds:
                found.append(_describe(pair, adds, joined, other))
    return found


def _name_added(joined: ModelSettings, other: ModelSettings) -> str:
    """Return which input a model has and another lacks; empty where they differ otherwise."""
    if not joined.join_columns or other.join_columns:
        return ""
    if other.kind == "table":
        return "image" if set(other.columns) == set(joined.columns) else ""
    alone = replace(joined, name=other.name, columns=other.columns, join_columns=False)
    return "table" if alone == other else ""


def _describe(pair: Comparison, adds: str, joined: str, other: str) -> AddedInput:
    difference, verdict = pair.differences[pair.primary], decide(pair)
    values = difference.difference, difference.low, difference.high
    if joined == pair.first:
        verdict = replace(verdict, verdict=FLIPPED.get(verdict.verdict, verdict.verdict))
        values = -difference.difference, -difference.high, -difference.low
    return AddedInput(adds, joined, other, verdict, *values, metric=pair.primary)


def added_as_json(found: Sequence[AddedInput]) -> list[dict[str, Any]]:
    """Return the entries of `added` in comparison.json."""
    return [asdict(one) | asdict(one.verdict) for one in found]


def summarise_ablations(
    by_model: Mapping[str, Sequence[Trial]],
    scores: Mapping[str, Sequence[Predictions]],
    seeds: Sequence[int],
) -> dict[str, dict[str, Any]]:
    """Return the block `ablation` of each model of images and columns, over all its folds and seeds.

    Args:
        by_model: The trials of each model.
        scores: Test scores of each, one per trial.
        seeds: Seed of each of a model's trials.
    """
    blocks = {}
    for name, trials in by_model.items():
        blanked = [read_ablation(trial.run) for trial in trials]
        if all(blanked):
            fits = {ALL_INPUTS: scores[name]} | {key: [one[key] for one in blanked] for key in blanked[0]}
            blocks[name] = summarise_ablation(fits, split="test", seeds=seeds)
    return blocks
