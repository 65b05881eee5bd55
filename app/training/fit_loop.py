"""Compile and fit a network: optimiser, phases with frozen and unfrozen layers, from and to checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import keras
from numpy.typing import NDArray

from voxlift.app.config import OptimizerSettings, SettingsError, TrainerSettings, TrainSettings
from voxlift.app.errors import UserError
from voxlift.app.runtime.devices import backend_name
from voxlift.app.training.callbacks.monitoring import EarlyStopping
from voxlift.app.training.callbacks.stateful import (
    StatefulCallback,
    StepCounter,
    collect_states,
    restore_states,
)
from voxlift.app.training.checkpoints import (
    Checkpoint,
    Checkpoints,
    Phase,
    Position,
    gather_arrays,
    plan_phases,
    restore_arrays,
    select_arrays,
)
from voxlift.app.training.strategy.distribute import is_mirrored, scope_of, sum_before_clipping
from voxlift.models.join import HIDDEN_NAME
from voxlift.models.layers.outputs import OUTPUT_LAYERS
from voxlift.models.losses import Loss
from voxlift.models.optimizers import FusedAdamW, add_weight_averaging

if TYPE_CHECKING:
    import tensorflow as tf

UNDECAYED = ("bias", "gamma", "beta", "alpha", "scale")  # a pull towards zero has no meaning for these


@dataclass(frozen=True)
class NetworkFit:
    """What is fitted, on what, and how.

    Attributes:
        network: To fit.
        stream: Returns the batches from a position to the end of the training.
        steps_per_epoch: Batches of an epoch.
        loss: Of labels and outputs of a batch, per example.
        optimizer: Its settings.
        trainer: Epochs, accumulation, averages.
        freeze_epochs: Epochs in which all layers but the head are frozen.
    """

    network: Any
    stream: Callable[[Position], tf.data.Dataset]
    steps_per_epoch: int
    loss: Loss
    optimizer: OptimizerSettings
    trainer: TrainerSettings
    freeze_epochs: int = 0


def compile_network(fit: NetworkFit, *, done: int = 0) -> None:
    """Give the network its optimiser and loss, both in float32.

    Args:
        fit: With the network.
        done: Batches that were trained before, with another optimiser.
    """
    steps = Steps(fit.trainer.epochs * fit.steps_per_epoch, fit.steps_per_epoch, done)
    with scope_of(fit.network):
        _compile(fit, steps)
    if is_mirrored(fit.network):
        sum_before_clipping(fit.network)


def _compile(fit: NetworkFit, steps: Steps) -> None:
    fit.network.compile(
        optimizer=build_optimizer(
            fit.optimizer,
            fit.network,
            steps=steps,
            accumulate=fit.trainer.accumulate,
            ema=fit.trainer.ema,
        ),
        loss=fit.loss,
        # XLA is slower than oneDNN for 3D convolution on a CPU; JAX computes operation by operation without.
        jit_compile=backend_name() != "tensorflow",
        auto_scale_loss=False,  # our optimiser does it
    )


def fit_network(
    fit: NetworkFit,
    *,
    counter: StepCounter,
    keep: EarlyStopping,
    callbacks: Sequence[Any],
    checkpoints: Checkpoints,
) -> None:
    """Train for the epochs asked for, from the newest checkpoint on; leave the best weights in place.

    Args:
        fit: What is fitted.
        counter: Learns where each phase begins.
        keep: Holds the best weights, and knows when patience has ended.
        callbacks: In the order of Keras, `counter` and `keep` among them.
        checkpoints: Where to resume from, and where to save.

    Raises:
        UserError: A callback stopped the training; the best weights so far are in place.
        SettingsError: The newest checkpoint is that of another network.
    """
    found = checkpoints.load()
    stateful = [callback for callback in callbacks if isinstance(callback, StatefulCallback)]
    saver = SaveCheckpoints(
        checkpoints,
        counter=counter,
        keep=keep,
        stateful=stateful,
        steps=fit.trainer.checkpoint_steps,
        steps_per_epoch=fit.steps_per_epoch,
    )
    if found:
        restore_states(stateful, found.state)
        keep.load_best(found.best)
    body = find_body(fit.network)
    try:
        for phase in plan_phases(_start(found), epochs=fit.trainer.epochs, unfreeze=fit.freeze_epochs):
            if keep.stopped:
                break
            means = _prepare_phase(fit, phase, body=body, found=found)
            counter.enter(phase, means)
            _fit_phase(fit, phase, callbacks=[*callbacks, saver])
    except UserError:
        keep.restore_best(fit.network)  # for the caller to save
        raise
    finally:
        body.set_trainable(True)
    keep.restore_best(fit.network)


def _start(found: Checkpoint | None) -> Position:
    return found.position if found else Position()


def _prepare_phase(
    fit: NetworkFit, phase: Phase, *, body: Body, found: Checkpoint | None
) -> list[NDArray[Any]]:
    """Compile the network for a phase where needed, and restore a checkpoint in the first one.

    Returns:
        The running means of an epoch that is resumed; empty otherwise.
    """
    is_first = phase.first == _start(found).epoch
    if is_first or phase.first == fit.freeze_epochs:
        _compile_from(fit, phase.first, body)
    if not (is_first and found):
        return []
    _restore(fit, found)
    return select_arrays(found.arrays, "means")


def _compile_from(fit: NetworkFit, epoch: int, body: Body) -> None:
    """Compile for the epochs from `epoch` on; the body is frozen in the first `freeze_epochs`."""
    is_unfrozen = epoch >= fit.freeze_epochs
    body.set_trainable(is_unfrozen)
    compile_network(fit, done=fit.freeze_epochs * fit.steps_per_epoch if is_unfrozen else 0)


def _fit_phase(fit: NetworkFit, phase: Phase, *, callbacks: Sequence[Any]) -> None:
    fit.network.fit(
        fit.stream(Position(phase.first, phase.skip)),
        initial_epoch=phase.first,
        epochs=phase.last,
        steps_per_epoch=fit.steps_per_epoch - phase.skip,
        callbacks=list(callbacks),
        shuffle=False,  # the batches are shuffled already
        verbose=0,
    )


def _restore(fit: NetworkFit, found: Checkpoint) -> None:
    """Restore the compiled network from a checkpoint; after the frozen epochs the optimiser is a new one."""
    is_unfreezing = fit.freeze_epochs > 0 and found.position == Position(fit.freeze_epochs)
    parts = ("network",) if is_unfreezing else ("network", "optimizer")
    restore_arrays(fit.network, found.arrays, parts=parts)


@dataclass(frozen=True)
class Body:
    """The trainable layers of a network before its head."""

    layers: tuple[Any, ...]

    def set_trainable(self, trainable: bool) -> None:  # noqa: FBT001 - the one thing that is set
        """Freeze or unfreeze, with the statistics of normalisation; compile the network afterwards."""
        for layer in self.layers:
            layer.trainable = trainable


def find_body(network: Any) -> Body:  # noqa: ANN401 - untyped Keras
    """Return all layers with weights but those of the head, without those that were frozen before."""
    layers = [
        layer
        for layer in network._flatten_layers(include_self=False)  # noqa: SLF001 - Keras has no public walk into nested networks
        if layer._trainable_variables and not isinstance(layer, OUTPUT_LAYERS)  # noqa: SLF001 - its own alone
    ]
    body = [layer for layer in layers[:-1] if layer.name != HIDDEN_NAME]
    return Body(tuple(layer for layer in body if layer.trainable))


class SaveCheckpoints(StatefulCallback):
    """Writes a checkpoint after each epoch and, unless `steps` is 0, every `steps` batches."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        *,
        counter: StepCounter,
        keep: EarlyStopping,
        stateful: Sequence[StatefulCallback],
        steps: int = 0,
        steps_per_epoch: int = 0,
    ) -> None:
        super().__init__()
        self.checkpoints, self.counter, self.keep, self.steps = checkpoints, counter, keep, steps
        self.steps_per_epoch = steps_per_epoch
        self.stateful = tuple(stateful)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Save within an epoch; after its last batch the end of the epoch saves."""
        step = self.counter.position.step
        if self.steps and step % self.steps == 0 and step < self.steps_per_epoch:
            self._save()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - as above
        """Save at the end of the epoch."""
        self._save()

    def _save(self) -> None:
        checkpoint = Checkpoint(
            self.counter.position,
            gather_arrays(self.model),
            collect_states(self.stateful),
            self.keep.arrays(),
        )
        self.checkpoints.save(checkpoint, best_epoch=self.keep.best_epoch)


@dataclass(frozen=True)
class Steps:
    """The steps of a whole training, for the schedule of an optimiser."""

    total: int
    per_epoch: int
    done: int = 0  # with an earlier optimiser


def scale_learning_rate(settings: TrainSettings) -> OptimizerSettings:
    """Return the settings of the optimiser, with the learning rate times `model.rate_factor`."""
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
    """Build a Keras optimiser for the trainable weights of a network.

    Args:
        settings: Name, learning rate, schedule, weight decay and clipping.
        network: Its normalisation and biases are not decayed; where a layer computes in float16 the loss is
            scaled.
        steps: Batches of the whole training, over which the schedule runs.
        accumulate: Batches whose gradients are averaged before each step.
        ema: Momentum of the average of the weights; 0 keeps none.

    Raises:
        SettingsError: An unknown name, or options that the optimiser does not take.
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
