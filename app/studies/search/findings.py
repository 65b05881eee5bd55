"""What a search has found, for its page: the trials, and the trainings that check the gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from voxlift.app.settings import TrainSettings
from voxlift.app.settings.overrides import format_override
from voxlift.app.studies.search.store import import_optuna
from voxlift.app.studies.space import Choices, Range
from voxlift.app.trials.outcomes import Outcome

if TYPE_CHECKING:
    import optuna

GIVEN, BEST = "given", "best"  # labels of the trainings that check the gain


@dataclass(frozen=True)
class SearchFindings:
    """What the search found.

    Attributes:
        base: The given settings.
        space: What was searched.
        known: The search with all of its trials.
        shared: Overrides of every trial.
        confirmed: The trainings that check the gain on other seeds.
    """

    base: TrainSettings
    space: Mapping[str, Range | Choices]
    known: optuna.Study
    shared: Sequence[str]
    confirmed: Sequence[Outcome]


def finished(known: optuna.Study) -> list[Any]:
    """The trials that were trained to the end."""
    state = import_optuna().trial.TrialState.COMPLETE
    return list(known.get_trials(deepcopy=False, states=(state,)))


def overrides_of(params: Mapping[str, Any]) -> list[str]:
    """A trial's settings as overrides; lists and mappings are kept as text in Hydra's grammar."""
    return [
        f"{key}={value}"
        if isinstance(value, str) and value[:1] in {"[", "{"}
        else format_override(key, value)
        for key, value in params.items()
    ]
