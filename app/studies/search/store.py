"""The search's memory: an Optuna study in SQLite, opened again by the same command."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlift.app.comparison.trial import Outcome
from voxlift.app.config import TrainSettings
from voxlift.app.config.commands import SearchStudy
from voxlift.app.config.overrides import format_override, format_value
from voxlift.app.errors import UserError, install_extra
from voxlift.app.studies.space import Choices, Range

if TYPE_CHECKING:
    import optuna


RETRY = "retry_of"  # attribute of a trial that does again what a killed search left unfinished
DIRECTIONS = {"loss": "minimize"}


def open_store(study: SearchStudy, file: Path) -> optuna.Study:
    """The search with all that it knows so far; what a killed search left unfinished is queued again.

    Raises:
        UserError: Optuna is not installed.
    """
    tool = import_optuna()
    storage = f"sqlite:///{file}"
    known: optuna.Study = tool.create_study(
        study_name="search",
        storage=storage,
        load_if_exists=True,
        direction=DIRECTIONS.get(study.metric, "maximize"),
    )
    # A sampler that starts anew with the same seed would draw the same random values again.
    known.sampler = tool.samplers.TPESampler(
        seed=study.sampler_seed + len(known.trials), n_startup_trials=study.startup_trials
    )
    known.pruner = _pruner(tool, study)
    requeue_unfinished(known)
    return known


def import_optuna() -> Any:  # noqa: ANN401 - a module that may be absent
    """Optuna, quiet.

    Raises:
        UserError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError(
            f"study=search: expected the package optuna, which is not installed. {install_extra('search')}"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def requeue_unfinished(known: optuna.Study) -> None:
    """Give trials that a killed search left running to the next search, with the same settings."""
    states = import_optuna().trial.TrialState
    for trial in known.get_trials(deepcopy=False, states=(states.RUNNING,)):
        known.tell(trial.number, state=states.FAIL)
        known.enqueue_trial(dict(trial.params), user_attrs={RETRY: trial.number})


def count_done(known: optuna.Study) -> int:
    """Trials that came to an end of their own: finished, pruned or failed."""
    trials = known.get_trials(deepcopy=False)
    retried = {trial.user_attrs[RETRY] for trial in trials if RETRY in trial.user_attrs}
    return sum(trial.state.is_finished() and trial.number not in retried for trial in trials)


def build_distributions(space: Mapping[str, Range | Choices]) -> dict[str, Any]:
    """The space as Optuna takes it."""
    kinds = import_optuna().distributions
    found: dict[str, Any] = {}
    for key, one in space.items():
        if isinstance(one, Choices):
            found[key] = kinds.CategoricalDistribution(choices_for_store(one.values))
        elif one.is_whole:
            step = int(one.step or 1)
            found[key] = kinds.IntDistribution(int(one.low), int(one.high), log=one.log, step=step)
        else:
            found[key] = kinds.FloatDistribution(one.low, one.high, log=one.log, step=one.step)
    return found


def choices_for_store(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Choices that the database can hold: lists and mappings as their text in Hydra's grammar."""
    return tuple(format_value(value) if isinstance(value, list | dict) else value for value in values)


def _pruner(tool: Any, study: SearchStudy) -> Any:  # noqa: ANN401 - a module that may be absent
    if not study.prune:
        return tool.pruners.NopPruner()
    return tool.pruners.MedianPruner(
        n_startup_trials=study.startup_trials, n_warmup_steps=study.warmup_epochs
    )


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
