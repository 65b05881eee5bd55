"""The best of several settings of a model, chosen on validation: what a 3D network should be compared with.

A contest stands among the models of a comparison under a name of its own. In each fold and seed all its
candidates are trained, and the one that ranks the validation subjects best scores the test subjects; those
play no part in the choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from voxlift.app.comparison.trial import Outcome, Trial
from voxlift.app.files import read_json


@dataclass(frozen=True)
class Choice:
    """What a contest chose in one fold and seed.

    Attributes:
        contest: its name.
        fold: of the cell.
        seed: of the cell.
        chosen: the candidate's name.
        scores: validation AUC of each candidate whose training finished; nan where it is undefined.
    """

    contest: str
    fold: int
    seed: int
    chosen: str
    scores: Mapping[str, float]


def expand_names(names: Sequence[str], contests: Mapping[str, Sequence[str]]) -> list[str]:
    """The models to train: candidates in place of their contest, each once."""
    found = [candidate for name in names for candidate in contests.get(name, [name])]
    return list(dict.fromkeys(found))


def settle_contests(
    names: Sequence[str], outcomes: Sequence[Outcome], contests: Mapping[str, Sequence[str]]
) -> tuple[list[Trial], list[Choice]]:
    """The finished trials of the models that are compared, and how each contest chose its own.

    Args:
        names: of the models and contests that are compared.
        outcomes: of all trainings, the candidates' too.
        contests: name to candidates, in order of preference where two are equal.

    Returns:
        A contest's trials bear its name and hold the run of the chosen candidate.
    """
    finished = [outcome.trial for outcome in outcomes if outcome.is_finished]
    cells = list(dict.fromkeys(trial.cell for trial in finished))
    trials: list[Trial] = []
    choices: list[Choice] = []
    for name in names:
        if name not in contests:
            trials += [trial for trial in finished if trial.model == name]
            continue
        for cell in cells:
            entered = {t.model: t for t in finished if t.cell == cell and t.model in contests[name]}
            standings = {model: _standing(entered[model]) for model in contests[name] if model in entered}
            if standings:
                chosen = max(standings, key=lambda model: standings[model])  # the first of equal ones
                scores = {model: standing[0] for model, standing in standings.items()}
                choices.append(Choice(name, *cell, chosen, scores))
                trials.append(replace(entered[chosen], model=name))
    return trials, choices


def describe_choices(choices: Sequence[Choice]) -> list[str]:
    """One sentence per contest: who won, how often where there were several cells, and the mean AUCs."""
    sentences = []
    for contest in dict.fromkeys(choice.contest for choice in choices):
        own = [choice for choice in choices if choice.contest == contest]
        names = dict.fromkeys(name for choice in own for name in choice.scores)
        parts = []
        for name in names:
            values = [choice.scores[name] for choice in own if name in choice.scores]
            count = sum(choice.chosen == name for choice in own)
            taken = f", chosen {count} of {len(own)} times" if len(own) > 1 and count else ""
            parts.append(f"{name} {sum(values) / len(values):.3f}{taken}")
        winner = f"{own[0].chosen}, " if len(own) == 1 else ""
        sentences.append(
            f"{contest} is {winner}the best of {len(names)} models, chosen on validation "
            f"(ROC AUC, then log loss; AUCs: {'; '.join(parts)})."
        )
    return sentences


def _standing(trial: Trial) -> tuple[float, float]:
    """Validation AUC and minus log loss, larger is better; what is undefined is worse than anything."""
    metrics = read_json(trial.run.metrics)["val"]
    auc, loss = metrics.get("auc"), metrics.get("log_loss")
    return (-math.inf if auc is None else float(auc), -math.inf if loss is None else -float(loss))
