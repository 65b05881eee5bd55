"""Compose the overrides of a training to its checked settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from voxlift.app.comparison.trial import Trial
from voxlift.app.config import PreprocessSettings, SettingsError, TrainSettings
from voxlift.app.config.keys import suggest
from voxlift.app.config.overrides import format_override, remove_keys, to_settings
from voxlift.app.config.schema import NOT_DECIDED
from voxlift.app.training.baseline import check_training


def compose_training(overrides: Sequence[str]) -> TrainSettings:
    """Return the checked settings of a training with these overrides.

    Raises:
        SettingsError: The settings are wrong; all problems are listed.
    """
    settings = to_settings(compose("train", overrides=list(overrides)), TrainSettings)
    check_training(settings)
    if settings.strategy == "hosts":
        raise SettingsError(
            "strategy=hosts: expected strategy=single or strategy=mirrored; only voxlift-train trains on "
            "several hosts."
        )
    from voxlift.app.data.sources import resolve_preprocess  # numpy: not for --help

    return resolve_preprocess(settings)


def with_plain_preprocess(overrides: Sequence[str]) -> list[str]:
    """Return overrides with plain settings in place of `preprocess=auto`; others as they are.

    Raises:
        SettingsError, VolumeError, ManifestError: The settings are wrong, or no image could be read.
    """
    if to_settings(compose("train", overrides=list(overrides)), TrainSettings).preprocess.name != "auto":
        return list(overrides)
    return [
        *remove_keys(overrides, ("preprocess", "preprocess.budget")),
        *plain_overrides(compose_training(overrides).preprocess),
    ]


def plain_overrides(preprocess: PreprocessSettings) -> list[str]:
    """Return the overrides that give the settings which `preprocess=auto` has decided."""
    preset = to_settings(compose("train", [f"preprocess={preprocess.name}"]), TrainSettings).preprocess
    changed = [one.name for one in fields(preprocess) if one.name not in ("name", *NOT_DECIDED)]
    return [
        f"preprocess={preprocess.name}",
        *(
            format_override(f"preprocess.{name}", getattr(preprocess, name))
            for name in changed
            if getattr(preprocess, name) != getattr(preset, name)
        ),
    ]


def compose_trial(trial: Trial) -> tuple[Trial, TrainSettings]:
    """Return a trial with its checked settings; `model.columns` is left out where its model reads no columns.

    Raises:
        SettingsError: The settings are wrong.
    """
    trial = replace(trial, overrides=tuple(with_plain_preprocess(trial.overrides)))
    settings = compose_training(trial.overrides)
    if not settings.model.columns or settings.model.reads_columns:
        return trial, settings
    without = (*remove_keys(trial.overrides, ("model.columns",)), "model.columns=[]")
    return replace(trial, overrides=without), compose_training(without)


def build_model_overrides(name: str, *, groups: Sequence[str] = ()) -> list[str]:
    """Return the overrides that select a model or an experiment, on top of the experiment given for all.

    Args:
        name: Name of a model or an experiment.
        groups: Names under `best_of`, listed in the error message.

    Raises:
        SettingsError: No model and no experiment has this name.
    """
    loader = GlobalHydra.instance().config_loader()
    models, experiments = (loader.get_group_options(group) for group in ("model", "experiment"))
    shared = HydraConfig.get().runtime.choices.get("experiment")
    if name in experiments:
        return [f"experiment=[{shared},{name}]" if shared else f"experiment={name}"]
    if name in models:
        return [*([f"experiment={shared}"] if shared else []), f"model={name}"]
    raise SettingsError(
        f"models: {name} is not known.{suggest(name, [*models, *experiments, *groups])} "
        f"Expected a model ({', '.join(models)}), an experiment ({', '.join(experiments) or 'none'}) "
        f"or a name under best_of ({', '.join(groups) or 'none'})."
    )


def config_dir_arguments() -> Iterator[str]:
    """Return the arguments that pass the user's own configuration folder to the trainings."""
    for source in HydraConfig.get().runtime.config_sources:
        if source.provider == "command-line":
            yield from ("--config-dir", str(source.path))
