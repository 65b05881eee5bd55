"""How weights move: a Keras optimiser by name, with its schedule, and what it must leave alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras

from voxlift.app.config import OptimizerSettings, SettingsError, TrainSettings
from voxlift.models.optimizers import FusedAdamW, add_weight_averaging

UNDECAYED = ("bias", "gamma", "beta", "alpha", "scale")  # a pull towards zero has no meaning for these


@dataclass(frozen=True)
class Steps:
    """The steps of a whole training, for the schedule of an optimizer."""

    total: int
    per_epoch: int
    done: int = 0  # with an earlier optimizer


def scale_learning_rate(settings: TrainSettings) -> OptimizerSettings:
    """Return the settings of the optimizer, with the learning rate times `model.rate_factor`."""
    rate = settings.optimizer.learning_rate * settings.model.rate_factor
    return replace(settings.optimizer, learning_rate=rate)


def build_optimizer(
    settings: OptimizerSettings,
    network: Any,  # noqa: ANN401 - untyped Keras
    *,
    steps: Steps,
    accumulate: int = 1,
    ema: float = 0.0,
) -> Any:  # noqa: ANN401 - untyped Keras
    """Build a Keras optimizer for the trainable weights of a network.

    Args:
        settings: Name, learning rate, schedule, weight decay and clipping.
        network: Its normalisation and biases are not decayed; where a layer computes in float16 the loss is
            scaled.
        steps: Batches of the whole training, over which the schedule runs.
        accumulate: Batches whose gradients are averaged before each step.
        ema: Momentum of the average of the weights; 0 keeps none.

    Raises:
        SettingsError: an unknown name, or options that the optimiser does not take.
    """
    kind = _optimizer_class(settings.name)
    arguments = {
        "learning_rate": build_schedule(settings, steps=steps),
        "weight_decay": settings.weight_decay,
        "global_clipnorm": settings.clip_norm,
        "gradient_accumulation_steps": accumulate if accumulate > 1 else None,
        **settings.options,
    }
    try:
        optimizer = (add_weight_averaging(kind) if ema else kind)(**arguments)
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"optimizer={settings.name}, options {dict(settings.options)}: {error}"
        ) from error
    if ema:
        optimizer.average_momentum = ema
    if settings.weight_decay:
        optimizer.exclude_from_weight_decay(var_list=undecayed_weights(network))
    if computes_in_float16(network):
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(network.trainable_variables)
    return optimizer


def undecayed_weights(network: Any) -> list[Any]:  # noqa: ANN401 - untyped Keras
    """Return the weights without decay: normalisation, biases, and others with one number per channel."""
    return [
        weight
        for layer in network._flatten_layers()  # noqa: SLF001 - Keras has no public walk into nested networks
        for weight in layer._trainable_variables  # noqa: SLF001 - its own, without those of layers inside
        if len(weight.shape) < 2
        or weight.name in UNDECAYED
        or "normalization" in type(layer).__name__.lower()
    ]


def computes_in_float16(network: Any) -> bool:  # noqa: ANN401 - untyped Keras
    """Return whether small gradients vanish unless the loss is scaled."""
    return any(layer.compute_dtype == "float16" for layer in network._flatten_layers())  # noqa: SLF001 - as above


def _optimizer_class(name: str) -> type:
    known = {
        key: value
        for key, value in vars(keras.optimizers).items()
        if isinstance(value, type)
        and issubclass(value, keras.optimizers.Optimizer)
        and value not in (keras.optimizers.Optimizer, keras.optimizers.LossScaleOptimizer)
    }
    if name not in known:
        raise SettingsError(f"optimizer.name: expected one of {', '.join(sorted(known))}; received {name}.")
    return FusedAdamW if name == "AdamW" else known[name]


def build_schedule(settings: OptimizerSettings, *, steps: Steps) -> float | Callable[..., Any]:
    """Return a constant rate, or a linear warm-up from a hundredth of it and a cosine decay back to that."""
    rate = settings.learning_rate
    if settings.schedule == "constant":
        return rate
    warmup = min(int(settings.warmup_epochs * steps.per_epoch), steps.total // 2)
    return ShiftedCosine(
        rate / 100 if warmup else rate,
        decay_steps=max(1, steps.total - warmup),
        alpha=0.01,
        warmup_target=rate if warmup else None,
        warmup_steps=warmup,
        shift=steps.done,
    )


@keras.saving.register_keras_serializable(package="voxlift")
class ShiftedCosine(keras.optimizers.schedules.CosineDecay):
    """A cosine decay whose first `shift` steps are left out."""

    def __init__(self, *args: Any, shift: int = 0, **kwargs: Any) -> None:  # noqa: ANN401 - what Keras's schedule takes
        super().__init__(*args, **kwargs)
        self.shift = shift

    def __call__(self, step: Any) -> Any:  # noqa: ANN401 - a backend's scalar
        """Return the rate at a step."""
        return super().__call__(step + self.shift)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, as Keras serialises a schedule."""
        return {**super().get_config(), "shift": self.shift}
