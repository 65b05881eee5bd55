"""What goes wrong in a training is named: a loss that is not finite, float16 that overflows, slow input."""

import csv
import logging
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from voxlift.app.config import OptimizerSettings, TrainerSettings
from voxlift.app.errors import UserError
from voxlift.app.runtime.setup import keep_logits_precise
from voxlift.app.training.callbacks.monitoring import (
    EarlyStopping,
    InputClock,
    ScoreValidation,
    SplitStepTime,
    StopOnNonFinite,
    WatchLossScale,
)
from voxlift.app.training.callbacks.recording import WriteHistory
from voxlift.app.training.callbacks.stateful import StepCounter
from voxlift.app.training.checkpoints import Checkpoints
from voxlift.app.training.fit_loop import NetworkFit, find_body, fit_network
from voxlift.data_pipelines.pipeline import TrainingOptions, records_in_batch
from voxlift.models.baselines import build_baseline
from voxlift.models.lifting import plan_lift
from voxlift.models.losses import build_loss

RNG = np.random.default_rng(0)
SHAPE = (6, 8, 10, 1)
CONSTANT = OptimizerSettings(schedule="constant", learning_rate=0.01)


@pytest.fixture(autouse=True)
def read_published(monkeypatch):
    monkeypatch.setattr(logging.getLogger("voxlift"), "propagate", True)


def volume_network():
    flat = build_baseline("cnn", input_shape=(8, 10, 1), classes=2, filters=(2, 3, 4))
    return plan_lift(flat, depth=6, depth_policy="isotropic").build()


def stream_of(voxels, labels, epochs):
    weights = np.ones(len(labels), np.float32)
    rows = tf.data.Dataset.from_tensor_slices((voxels, labels, weights)).batch(2).repeat(epochs)
    return lambda at: rows.skip(at.epoch * (len(labels) // 2) + at.step)


def fit(folder, voxels, *, network=None, epochs=3, freeze_epochs=0, **trainer):
    labels = np.arange(len(voxels)) % 2
    network = network or volume_network()
    counter, keep = StepCounter(), EarlyStopping("loss", patience=0)
    task = NetworkFit(
        network,
        stream_of(voxels, labels, epochs),
        len(voxels) // 2,
        loss=build_loss(classes=2),
        optimizer=CONSTANT,
        trainer=TrainerSettings(epochs=epochs, **trainer),
        freeze_epochs=freeze_epochs,
    )
    losses = iter(range(100, 0, -1))
    callbacks = [
        counter,
        StopOnNonFinite(counter, lambda at: [f"epoch{at.epoch}", f"step{at.step}"]),
        WatchLossScale(counter),
        ScoreValidation(lambda: {"loss": float(next(losses))}),
        WriteHistory(folder / "history.csv"),
        keep,
    ]
    fit_network(
        task, counter=counter, keep=keep, callbacks=callbacks, checkpoints=Checkpoints(folder / "checkpoints")
    )
    return network, keep


def test_a_loss_that_is_not_finite_stops_at_its_batch_with_the_best_weights_in_place(tmp_path):
    voxels = RNG.normal(size=(12, *SHAPE)).astype("float32")
    voxels[8:10] = np.nan
    with pytest.raises(UserError, match=r"not finite at batch [56] of epoch 1.*epoch0, step4"):
        fit(tmp_path, voxels)


def test_weights_that_blow_up_later_leave_those_of_the_best_epoch(tmp_path):
    network = volume_network()
    voxels = RNG.normal(size=(4, *SHAPE)).astype("float32")
    seen = []

    class BlowUp(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):  # noqa: ARG002 - the signature of Keras
            if epoch == 2:
                seen.extend(self.model.get_weights())
                self.model.set_weights([np.full_like(weight, np.nan) for weight in self.model.get_weights()])

    labels = np.arange(4) % 2
    counter, keep = StepCounter(), EarlyStopping("loss", patience=0)
    task = NetworkFit(
        network, stream_of(voxels, labels, 4), 2, build_loss(classes=2), CONSTANT, TrainerSettings(epochs=4)
    )
    callbacks = [
        counter,
        BlowUp(),
        StopOnNonFinite(counter, lambda _: ["s"]),
        ScoreValidation(lambda: {"loss": 1.0}),
        keep,
    ]
    with pytest.raises(UserError, match="batch 1 of epoch 3"):
        fit_network(
            task, counter=counter, keep=keep, callbacks=callbacks, checkpoints=Checkpoints(tmp_path / "c")
        )
    assert keep.best_epoch == 0
    for weight, kept in zip(network.get_weights(), keep.weights, strict=True):
        np.testing.assert_array_equal(weight, kept)
    assert len(seen) == len(keep.weights)


def test_skipped_steps_and_the_loss_scale_stand_in_the_history(tmp_path, caplog):
    keras.config.set_dtype_policy("mixed_float16")
    flat = build_baseline("resnet", input_shape=(8, 10, 1), classes=2, filters=(2, 3))
    network = plan_lift(flat, depth=6, depth_policy="preserve").build()
    voxels = RNG.normal(size=(4, *SHAPE)).astype("float32")

    class Overscale(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):  # noqa: ARG002 - the signature of Keras
            self.model.optimizer.dynamic_scale.assign(2.0**60)

    labels = np.arange(4) % 2
    counter, keep, history = (
        StepCounter(),
        EarlyStopping("loss", patience=0),
        WriteHistory(tmp_path / "history.csv"),
    )
    task = NetworkFit(
        network, stream_of(voxels, labels, 1), 2, build_loss(classes=2), CONSTANT, TrainerSettings(epochs=1)
    )
    callbacks = [
        counter,
        Overscale(),
        WatchLossScale(counter),
        ScoreValidation(lambda: {"loss": 1.0}),
        history,
        keep,
    ]
    with caplog.at_level(logging.INFO, "voxlift"):
        fit_network(
            task, counter=counter, keep=keep, callbacks=callbacks, checkpoints=Checkpoints(tmp_path / "c")
        )
    with (tmp_path / "history.csv").open() as file:
        row = next(csv.DictReader(file))
    assert float(row["skipped_steps"]) == 2
    assert float(row["loss_scale"]) == 2.0**58
    assert "overflowed in 2 of 2 batches" in caplog.text


def imprecise_layers(network):
    """What is not float32 though it should be: weights, statistics, logits; empty in a sound network."""
    found = [
        f"{layer.name}: {weight.name} is {weight.dtype}"
        for layer in network._flatten_layers()
        for weight in layer._trainable_variables + layer._non_trainable_variables
        if weight.dtype in {"float16", "bfloat16"}
    ]
    dtype = network.outputs[0].dtype
    return found if dtype == "float32" else [*found, f"{network.layers[-1].name}: the logits are {dtype}"]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_weights_statistics_and_logits_are_float32_in_every_layer(policy):
    keras.config.set_dtype_policy(policy)
    for network in (
        volume_network(),
        build_baseline("cnn", input_shape=(8, 10, 1), classes=2, filters=(2, 3, 4)),
    ):
        assert imprecise_layers(network) == []
        norms = [layer for layer in network._flatten_layers() if "Normalization" in type(layer).__name__]
        assert norms
        assert {w.dtype for layer in norms for w in layer.weights} == {"float32"}
        assert {layer.compute_dtype for layer in norms} == {policy.removeprefix("mixed_")}
    inputs = keras.Input((8, 10, 1))
    brought = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(inputs)))
    assert imprecise_layers(brought) != []
    keep_logits_precise(brought)
    assert str(brought(np.zeros((1, 8, 10, 1))).dtype.name) == "float32"


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_statistics_of_half_precision_batches_do_not_overflow(policy):
    keras.config.set_dtype_policy(policy)
    layer = next(layer for layer in volume_network().layers if "Normalization" in type(layer).__name__)
    inputs = (300.0 + RNG.normal(size=(2, 6, 8, 10, 2))).astype("float32")
    outputs = layer(inputs, training=True)  # the squares of these exceed float16
    assert np.isfinite(np.asarray(outputs, np.float32)).all()
    variance = layer.get_weights()[3]
    assert np.isfinite(variance).all()


def test_a_frozen_body_keeps_weights_and_statistics_until_it_thaws(tmp_path):
    voxels = RNG.normal(3, 2, size=(4, *SHAPE)).astype("float32")
    for epochs, is_frozen in ((2, True), (3, False)):
        network = volume_network()
        body = find_body(network)
        before = [layer.get_weights() for layer in body.layers]
        head = network.layers[-1].get_weights()
        folder = tmp_path / f"{epochs}"
        folder.mkdir()
        fit(folder, voxels, network=network, epochs=epochs, freeze_epochs=2)
        same = [
            np.array_equal(a, b)
            for layer, weights in zip(body.layers, before, strict=True)
            for a, b in zip(layer.get_weights(), weights, strict=True)
        ]
        assert all(same) == is_frozen
        assert not np.array_equal(head[0], network.layers[-1].get_weights()[0])
        assert all(layer.trainable for layer in body.layers)
        if not is_frozen:
            assert not any(same[::6])


@pytest.mark.parametrize("slices", [1, 3])
def test_the_names_are_those_of_the_volumes_that_the_stream_gives(slices, tmp_path):
    from voxlift.data_pipelines.cache.format import PreparedVolumes
    from voxlift.data_pipelines.pipeline import training_slices, training_volumes

    files = []
    for index in range(7):
        files.append(tmp_path / f"{index}.raw")
        np.full((3, 2, 2, 1), index, np.float16).tofile(files[-1])
    labels = np.arange(7) % 2
    volumes = PreparedVolumes(tuple(files), (3, 2, 2, 1), "float16")
    for epoch in (0, 1):
        options = TrainingOptions(batch_size=3, epochs=2, seed=4, first_epoch=epoch)
        chosen = np.ones((7, 3), bool)
        if slices == 1:
            stream, chosen, steps = training_volumes(volumes, labels, options), None, 2
        else:
            stream, steps = training_slices(volumes, labels, options, chosen=chosen), 7
        for step, batch in enumerate(stream.take(steps)):
            members = records_in_batch(labels, options, step=step, chosen=chosen)
            np.testing.assert_array_equal(members, batch[0].numpy().reshape(len(members), -1)[:, 0])


def test_input_slower_than_the_network_is_named(caplog):
    def delayed(x, y):
        def wait(value):
            time.sleep(0.05)
            return value

        return tf.ensure_shape(tf.numpy_function(wait, [x], tf.float32), (2, 3)), y

    rows = tf.data.Dataset.from_tensors((np.ones((2, 3), np.float32), np.zeros(2))).repeat(12)
    logs = {}
    for name, stream in (("slow", rows.map(delayed)), ("fast", rows)):
        caplog.clear()
        caplog.set_level(logging.INFO, "voxlift")
        clock = InputClock()
        inputs = keras.Input((3,))
        network = keras.Model(inputs, keras.layers.Dense(1)(inputs))
        network.compile(loss="mse")
        look = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda _, found, name=name: logs.update({name: {**found}})
        )
        network.fit(
            clock.attach(stream.prefetch(1)),
            steps_per_epoch=12,
            shuffle=False,
            callbacks=[SplitStepTime(clock, batch_size=2), look],
            verbose=0,
        )
        if name == "slow":
            assert "The input pipeline is the bottleneck" in caplog.text
    assert logs["slow"]["input_seconds"] > 0.3
    assert logs["fast"]["input_seconds"] < 0.3
