"""How weights move: a Keras optimiser by name, with its schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from app.settings import OptimizerSettings, SettingsError
from models.optimizers import FusedAdamW

UNDECAYED = ("bias", "gamma", "beta")  # weight decay pulls these towards a meaningless zero


def build_optimizer(settings: OptimizerSettings, *, total_steps: int, steps_per_epoch: int) -> Any:  # noqa: ANN401 - untyped Keras
    """A Keras optimiser by name, with its schedule; normalisation and bias are not decayed.

    Raises:
        SettingsError: an unknown name, or options that the optimiser does not take.
    """
    kind = _optimizer_class(settings.name)
    arguments = {
        "learning_rate": build_schedule(settings, total_steps=total_steps, steps_per_epoch=steps_per_epoch),
        "weight_decay": settings.weight_decay or None,
        "global_clipnorm": settings.clip_norm,
        **settings.options,
    }
    try:
        optimizer = kind(**arguments)
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"optimizer={settings.name}, options {dict(settings.options)}: {error}"
        ) from error
    if settings.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=list(UNDECAYED))
    return optimizer


def _optimizer_class(name: str) -> Callable[..., Any]:
    known = {
        key: value
        for key, value in vars(keras.optimizers).items()
        if isinstance(value, type)
        and issubclass(value, keras.optimizers.Optimizer)
        and value is not keras.optimizers.Optimizer
    }
    if name not in known:
        raise SettingsError(f"optimizer.name: expected one of {', '.join(sorted(known))}; received {name}.")
    return FusedAdamW if name == "AdamW" else known[name]


def build_schedule(settings: OptimizerSettings, *, total_steps: int, steps_per_epoch: int) -> Any:  # noqa: ANN401 - a float or a Keras schedule
    """A constant rate, or a linear warm-up from a hundredth of it and a cosine decay back to that."""
    rate = settings.learning_rate
    if settings.schedule == "constant":
        return rate
    warmup = min(int(settings.warmup_epochs * steps_per_epoch), total_steps // 2)
    return keras.optimizers.schedules.CosineDecay(
        rate / 100 if warmup else rate,
        decay_steps=max(1, total_steps - warmup),
        alpha=0.01,
        warmup_target=rate if warmup else None,
        warmup_steps=warmup,
    )
