"""Compile and fit as plain functions of values: no Hydra, no run folder but the paths it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from app.callbacks import KeepBest, ScoreVolumes, ShowProgress, StopOnNonFinite, WriteHistory
from app.settings import OptimizerSettings, SettingsError, TrainerSettings

if TYPE_CHECKING:
    import tensorflow as tf

UNDECAYED = ("bias", "gamma", "beta")  # weight decay pulls these towards a meaningless zero


def compile_network(
    network: Any,  # noqa: ANN401 - untyped Keras
    *,
    optimizer: OptimizerSettings,
    trainer: TrainerSettings,
    classes: int,
    steps_per_epoch: int,
    soft_labels: bool = False,
) -> None:
    """Give the network its optimiser and loss: softmax cross-entropy on float32 logits."""
    network.compile(
        optimizer=build_optimizer(
            optimizer, total_steps=trainer.epochs * steps_per_epoch, steps_per_epoch=steps_per_epoch
        ),
        loss=build_loss(classes, label_smoothing=trainer.label_smoothing, soft_labels=soft_labels),
        jit_compile=False,  # XLA is slower than oneDNN for 3D convolution on a CPU
    )


def build_loss(classes: int, *, label_smoothing: float, soft_labels: bool = False) -> Any:  # noqa: ANN401 - untyped Keras
    """Cross-entropy of logits and labels: class indices, or one-hot rows where mixup made them soft."""
    if label_smoothing == 0 and not soft_labels:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if soft_labels:
        return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=label_smoothing)

    def smoothed(labels: Any, logits: Any) -> Any:  # noqa: ANN401 - untyped Keras
        one_hot = keras.ops.one_hot(keras.ops.reshape(labels, (-1,)), classes)
        return keras.losses.categorical_crossentropy(
            one_hot, logits, from_logits=True, label_smoothing=label_smoothing
        )

    return smoothed


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
    return known[name]


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


def fit_network(
    network: Any,  # noqa: ANN401 - untyped Keras
    batches: tf.data.Dataset,
    *,
    trainer: TrainerSettings,
    steps_per_epoch: int,
    score: Callable[[], dict[str, float]],
    history: Path,
    tensorboard: Path | None = None,
) -> KeepBest:
    """Train for the epochs asked for and leave the network with its best weights.

    Args:
        network: compiled.
        batches: one stream over all epochs, `steps_per_epoch` batches each.
        trainer: epochs, monitored metric, patience.
        steps_per_epoch: batches that make an epoch.
        score: scores the validation volumes with the current weights.
        history: the CSV file that gets a row per epoch.
        tensorboard: where events go; None writes none.
    """
    keep = KeepBest(trainer.monitor, patience=trainer.patience)
    callbacks: Sequence[Any] = [
        ScoreVolumes(score),  # first: the others read what it adds to the logs
        WriteHistory(history),
        keep,
        StopOnNonFinite(),
        ShowProgress(epochs=trainer.epochs, steps=steps_per_epoch),
        *([keras.callbacks.TensorBoard(str(tensorboard), write_graph=False)] if tensorboard else []),
    ]
    network.fit(
        batches,
        epochs=trainer.epochs,
        steps_per_epoch=steps_per_epoch,
        callbacks=callbacks,
        shuffle=False,  # the stream is shuffled already
        verbose=0,
    )
    return keep
