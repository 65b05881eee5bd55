"""Steps of the optimiser: decayed weights, gradients of microbatches, averaged weights, the schedule."""

import keras
import numpy as np
import pytest

from voxlift.app.config import OptimizerSettings, SettingsError, TrainerSettings
from voxlift.app.training.fit_loop import (
    NetworkFit,
    Steps,
    build_optimizer,
    build_schedule,
    compile_network,
    undecayed_weights,
)
from voxlift.models.baselines import build_baseline
from voxlift.models.layers import ACSConv3D, DepthwiseConv3D, FusedBatchNormalization, SeparableConv3D
from voxlift.models.losses import build_loss
from voxlift.models.optimizers import averaged_weights
from voxlift.models.slice_model import wrap_slices

RNG = np.random.default_rng(0)
STEPS = Steps(total=100, per_epoch=10)
CONSTANT = OptimizerSettings(schedule="constant", learning_rate=0.01, weight_decay=0.0)
VOXELS = RNG.normal(size=(8, 4, 6, 5, 1)).astype("float32")
LABELS = RNG.integers(0, 2, 8)


def network_of(*layers):
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((4, 6, 5, 1))
    for layer in (*layers, keras.layers.GlobalAveragePooling3D(), keras.layers.Dense(2, name="logits")):
        x = layer(x)
    return keras.Model(inputs, x)


def task_of(network, settings=CONSTANT, loss="cross_entropy", **trainer):
    return NetworkFit(
        network,
        None,
        4,
        build_loss(loss, classes=2),
        optimizer=settings,
        trainer=TrainerSettings(epochs=5, **trainer),
    )


def own_layers():
    return [
        ACSConv3D(4, 3, padding="same", name="acs"),
        FusedBatchNormalization(name="fused"),
        DepthwiseConv3D(3, padding="same", name="depthwise"),
        keras.layers.LayerNormalization(name="layer"),
        SeparableConv3D(4, 3, padding="same", name="separable"),
        keras.layers.GroupNormalization(2, name="group"),
        keras.layers.PReLU(shared_axes=[1, 2, 3], name="prelu"),
        keras.layers.Conv3D(4, 3, name="conv"),
    ]


def test_decay_leaves_normalisation_and_bias_alone_and_takes_every_kernel():
    network = network_of(*own_layers())
    spared = {weight.path for weight in undecayed_weights(network)}
    expected = {weight.path for weight in network.trainable_variables if "kernel" not in weight.name}
    assert spared == expected
    assert len(spared) >= 9
    before = {weight.path: weight.numpy() for weight in network.trainable_variables}
    optimizer = build_optimizer(
        OptimizerSettings(schedule="constant", weight_decay=0.1), network, steps=STEPS
    )
    optimizer.apply([keras.ops.zeros_like(weight) for weight in network.trainable_variables])
    for weight in network.trainable_variables:
        if weight.path in spared:
            np.testing.assert_array_equal(weight.numpy(), before[weight.path])
        else:
            assert np.abs(weight.numpy()).sum() < np.abs(before[weight.path]).sum()


def test_decay_spares_what_attention_over_slices_has_but_its_kernels():
    flat = build_baseline("cnn", input_shape=(16, 16, 1), classes=2, filters=(4, 4, 4))
    wrapped = wrap_slices(flat, depth=5, aggregate="attention")
    spared = {weight.path for weight in undecayed_weights(wrapped)}
    assert all(len(weight.shape) > 1 for weight in wrapped.trainable_variables if weight.path not in spared)


@pytest.mark.parametrize("name", ["AdamW", "SGD", "Adam"])
def test_gradients_of_microbatches_make_the_step_of_the_large_batch(name):
    settings = OptimizerSettings(name=name, schedule="constant", learning_rate=0.01, weight_decay=0.01)
    weights = {}
    for microbatches in (1, 4):
        keras.utils.set_random_seed(0)
        network = network_of(keras.layers.Conv3D(3, 3))
        compile_network(task_of(network, settings, accumulate=microbatches))
        for _ in range(2):
            network.fit(VOXELS, LABELS, batch_size=8 // microbatches, shuffle=False, verbose=0)
        weights[microbatches] = network.get_weights()
    for whole, summed in zip(weights[1], weights[4], strict=True):
        np.testing.assert_allclose(summed, whole, rtol=1e-4, atol=1e-6)


def test_the_average_follows_the_weights_and_is_scored_in_their_place():
    network = network_of(keras.layers.Conv3D(3, 3))
    compile_network(task_of(network, ema=0.5))
    optimizer = network.optimizer
    average = [weight.numpy() for weight in network.trainable_variables]
    for step in range(1, 5):
        network.train_on_batch(VOXELS, LABELS)
        share = min(0.5, (1 + step) / (10 + step))
        weights = [weight.numpy() for weight in network.trainable_variables]
        average = [a * share + w * (1 - share) for a, w in zip(average, weights, strict=True)]
    for ours, expected in zip(optimizer.averages, average, strict=True):
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-5, atol=1e-7)
    with averaged_weights(network):
        for weight, expected in zip(network.trainable_variables, average, strict=True):
            np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-5, atol=1e-7)
    for weight, expected in zip(network.trainable_variables, weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected)


def test_the_average_waits_while_gradients_are_collected():
    network = network_of(keras.layers.Conv3D(3, 3))
    compile_network(task_of(network, ema=0.5, accumulate=3))
    first = network.optimizer.averages[0]
    before = first.numpy()
    for _ in range(2):
        network.train_on_batch(VOXELS, LABELS)
        np.testing.assert_array_equal(first.numpy(), before)
    network.train_on_batch(VOXELS, LABELS)
    assert not np.allclose(first.numpy(), before)


def test_float16_scales_the_loss_and_a_step_that_overflows_moves_nothing():
    keras.config.set_dtype_policy("mixed_float16")
    network = network_of(keras.layers.Conv3D(3, 3))
    compile_network(task_of(network, ema=0.5))
    watched = network.trainable_variables + network.optimizer.inner_optimizer.averages
    before = [variable.numpy() for variable in watched]
    assert isinstance(network.optimizer, keras.optimizers.LossScaleOptimizer)
    scale = float(network.optimizer.dynamic_scale)
    gradients = [keras.ops.full(weight.shape, np.inf) for weight in network.trainable_variables]
    network.optimizer.apply(gradients, network.trainable_variables)
    assert float(network.optimizer.dynamic_scale) == scale / 2
    for variable, value in zip(watched, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_a_later_optimiser_continues_the_schedule():
    settings = OptimizerSettings(warmup_epochs=1.0)
    whole, rest = build_schedule(settings, steps=STEPS), build_schedule(settings, steps=Steps(100, 10, 30))
    for step in (0, 5, 40):
        assert float(rest(step)) == pytest.approx(float(whole(step + 30)))
    assert float(whole(0)) == pytest.approx(2e-5)
    assert float(whole(10)) == pytest.approx(2e-3)
    assert float(whole(100)) == pytest.approx(2e-5, rel=1e-3)


def test_an_unknown_optimiser_and_foreign_options_are_reported():
    network = network_of()
    with pytest.raises(SettingsError, match="expected one of Adadelta"):
        build_optimizer(OptimizerSettings(name="Adamm"), network, steps=STEPS)
    with pytest.raises(SettingsError, match="momentum"):
        build_optimizer(OptimizerSettings(options={"momentum": 0.9}), network, steps=STEPS)


def test_the_loss_of_a_compiled_network_is_ours():
    network = network_of()
    compile_network(task_of(network, loss="focal", focal_gamma=2.0))
    found = network.evaluate(VOXELS, LABELS, batch_size=8, verbose=0)
    expected = build_loss("focal", classes=2)(LABELS, network(VOXELS))
    assert found == pytest.approx(float(np.mean(expected)), rel=1e-5)


def test_the_schedule_survives_being_saved():
    schedule = build_schedule(OptimizerSettings(warmup_epochs=1.0), steps=Steps(20, 5, done=3))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert type(again) is type(schedule)
    assert again.get_config() == schedule.get_config()
    assert float(again(4)) == float(schedule(4))
