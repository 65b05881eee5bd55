"""From the overrides of a training to its checked settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.config.overrides import to_settings
from voxlift.app.config.suggestions import suggest
from voxlift.app.training.checks import check_training


def compose_training(overrides: Sequence[str]) -> TrainSettings:
    """The checked settings of a training with these overrides.

    Raises:
        SettingsError: listing what is wrong with them.
    """
    settings = to_settings(compose("train", overrides=list(overrides)), TrainSettings)
    check_training(settings)
    if settings.strategy == "hosts":
        raise SettingsError(
            "strategy=hosts: only voxlift-train spreads over several hosts; here each training runs on one."
        )
    return settings


def choose_model(name: str, *, contests: Sequence[str] = ()) -> list[str]:
    """The overrides that choose a model or an experiment by its name, on top of the experiment given for all.

    Args:
        name: of the model or experiment.
        contests: names that a user may have meant, for the message.

    Raises:
        SettingsError: it is neither.
    """
    loader = GlobalHydra.instance().config_loader()
    known = {group: loader.get_group_options(group) for group in ("model", "experiment")}
    shared = HydraConfig.get().runtime.choices.get("experiment")
    if name in known["experiment"]:
        return [f"experiment=[{shared},{name}]" if shared else f"experiment={name}"]
    if name in known["model"]:
        return [*([f"experiment={shared}"] if shared else []), f"model={name}"]
    every = [*known["model"], *known["experiment"], *contests]
    raise SettingsError(
        f"models: {name} is not known.{suggest(name, every)} It is neither a model "
        f"({', '.join(known['model'])}), "
        f"nor an experiment ({', '.join(known['experiment']) or 'there is none'}), "
        f"nor a contest of best_of ({', '.join(contests) or 'there is none'})."
    )


def config_dir_arguments() -> Iterator[str]:
    """The user's own configuration folder, handed on to the trainings."""
    for source in HydraConfig.get().runtime.config_sources:
        if source.provider == "command-line":
            yield from ("--config-dir", str(source.path))
