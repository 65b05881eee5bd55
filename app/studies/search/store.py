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
from voxlift.app.studies.settings import Choices, Range

if TYPE_CHECKING:
    import optuna

GIVEN, BEST = "given", "best"  # labels of the trainings that check the gain
RETRY = "retry_of"  # attribute of a trial that repeats one that a killed search left unfinished
DIRECTIONS = {"loss": "minimize"}


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
        direction=DIRECTIONS.get(study.metric, "maximize"),
    )
    # A new sampler with the same seed would draw the same random values again.
    search.sampler = tool.samplers.TPESampler(
        seed=study.sampler_seed + len(search.trials), n_startup_trials=study.startup_trials
    )
    search.pruner = (
        tool.pruners.MedianPruner(n_startup_trials=study.startup_trials, n_warmup_steps=study.warmup_epochs)
        if study.prune
        else tool.pruners.NopPruner()
    )
    requeue_unfinished(search)
    return search


def requeue_unfinished(search: optuna.Study) -> None:
    """Queue trials that a killed search left running, with the same settings."""
    states = import_optuna().trial.TrialState
    for trial in search.get_trials(deepcopy=False, states=(states.RUNNING,)):
        search.tell(trial.number, state=states.FAIL)
        search.enqueue_trial(dict(trial.params), user_attrs={RETRY: trial.number})


def count_ended(search: optuna.Study) -> int:
    """Return the number of trials that were finished, pruned or failed; a repeated one counts once."""
    trials = search.get_trials(deepcopy=False)
    repeated = {trial.user_attrs[RETRY] for trial in trials if RETRY in trial.user_attrs}
    return sum(trial.state.is_finished() and trial.number not in repeated for trial in trials)


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
