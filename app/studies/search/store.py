"""Keep the search in SQLite as an Optuna study, opened again by the same command."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlift.app.comparison.trial import Outcome
from voxlift.app.config import TrainSettings
from voxlift.app.config.overrides import format_override, format_value
from voxlift.app.config.studies import SearchStudy
from voxlift.app.errors import UserError, install_extra
from voxlift.app.evaluation.metric_names import is_lower_better
from voxlift.app.studies.settings import Choices, Range

if TYPE_CHECKING:
    import optuna

GIVEN, BEST = "given", "best"  # labels of the trainings that check the gain
RETRY = "retry_of"  # attribute of a trial that repeats one that a killed search left unfinished


@dataclass(frozen=True)
class SearchFindings:
    """The results of the search.

    Attributes:
        base: Settings given by the user.
        space: Ranges and choices that were searched.
        search: Optuna study with all of its trials.
        shared: Overrides of every trial.
        confirmed: Outcomes of the trainings that check the gain on other seeds.
    """

    base: TrainSettings
    space: Mapping[str, Range | Choices]
    search: optuna.Study
    shared: Sequence[str]
    confirmed: Sequence[Outcome]


def import_optuna() -> Any:  # noqa: ANN401 - a module that may be absent
    """Return the module Optuna, with its log lines and warnings turned off.

    Raises:
        UserError: Optuna is not installed.
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


def open_search(study: SearchStudy, file: Path) -> optuna.Study:
    """Create the search, or open it with all of its trials; unfinished trials of a killed search are queued.

    Args:
        study: Settings of the study.
        file: SQLite database.

    Raises:
        UserError: Optuna is not installed.
    """
    tool = import_optuna()
    search: optuna.Study = tool.create_study(
        study_name="search",
        storage=f"sqlite:///{file}",
        load_if_exists=True,
        direction="minimize" if is_lower_better(study.metric) else "maximize",
    )
    search.pruner = (
        tool.pruners.MedianPruner(n_startup_trials=study.startup_trials, n_warmup_steps=study.warmup_epochs)
        if study.prune
        else tool.pruners.NopPruner()
    )
    requeue_unfinished(search)
    return search


def requeue_unfinished(search: optuna.Study) -> None:
    """Queue trials that a killed search left running; `ask_trial` draws the same settings for them again."""
    states, repeated = import_optuna().trial.TrialState, _list_repeated(search)
    for trial in search.get_trials(deepcopy=False, states=(states.RUNNING,)):
        if trial.number not in repeated:  # else the kill came between the two calls
            fixed = trial.system_attrs.get("fixed_params", {})
            search.enqueue_trial(fixed, user_attrs={**trial.user_attrs, RETRY: trial.number})
        search.tell(trial.number, state=states.FAIL)


def ask_trial(search: optuna.Study, study: SearchStudy, space: Mapping[str, Any]) -> optuna.Trial:
    """Return the next trial, with settings that depend only on those before it and on the seed.

    A search that was killed and resumed thus draws the same settings as an undisturbed one.

    Args:
        search: The search.
        study: Settings of the study.
        space: See `build_distributions`.
    """
    search.sampler = import_optuna().samplers.TPESampler(
        seed=study.sampler_seed + count_ended(search), n_startup_trials=study.startup_trials
    )
    return search.ask(dict(space))


def list_ended(search: optuna.Study) -> list[Any]:
    """Return the trials that were finished, pruned or failed, without those that were repeated."""
    repeated = _list_repeated(search)
    trials = search.get_trials(deepcopy=False)
    return [trial for trial in trials if trial.state.is_finished() and trial.number not in repeated]


def count_ended(search: optuna.Study) -> int:
    """Return the number of trials that were finished, pruned or failed; a repeated one counts once."""
    return len(list_ended(search))


def number_trials(search: optuna.Study) -> dict[int, int]:
    """Return the position of each ended trial by Optuna's number, which counts repeated ones twice."""
    return {trial.number: position for position, trial in enumerate(list_ended(search))}


def _list_repeated(search: optuna.Study) -> set[int]:
    trials = search.get_trials(deepcopy=False)
    return {trial.user_attrs[RETRY] for trial in trials if RETRY in trial.user_attrs}


def list_completed(search: optuna.Study) -> list[Any]:
    """Return the trials that were trained to the end."""
    state = import_optuna().trial.TrialState.COMPLETE
    return list(search.get_trials(deepcopy=False, states=(state,)))


def build_distributions(space: Mapping[str, Range | Choices]) -> dict[str, Any]:
    """Return the space as Optuna's distributions; lists and mappings become text in Hydra's grammar."""
    distributions = import_optuna().distributions
    found: dict[str, Any] = {}
    for key, one in space.items():
        if isinstance(one, Choices):
            values = [format_value(v) if isinstance(v, list | dict) else v for v in one.values]
            found[key] = distributions.CategoricalDistribution(tuple(values))
        elif one.is_whole:
            step = int(one.step or 1)
            found[key] = distributions.IntDistribution(int(one.low), int(one.high), log=one.log, step=step)
        else:
            found[key] = distributions.FloatDistribution(one.low, one.high, log=one.log, step=one.step)
    return found


def format_params(params: Mapping[str, Any]) -> list[str]:
    """Return a trial's settings as overrides; lists and mappings are text in Hydra's grammar already."""
    return [
        f"{key}={value}"
        if isinstance(value, str) and value[:1] in {"[", "{"}
        else format_override(key, value)
        for key, value in params.items()
    ]


def format_param(value: object) -> str:
    """Return a setting's value as text; a number with three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
