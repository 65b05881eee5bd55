"""The fused AdamW makes the steps of the optimiser of Keras that it replaces."""

import keras
import numpy as np
import pytest

from voxlift.models.optimizers import FusedAdamW

SETTINGS = [
    {},
    {"weight_decay": 0.0},
    {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3},
    {"global_clipnorm": 0.5},
    {"amsgrad": True},
    {"gradient_accumulation_steps": 2},
    {"use_ema": True, "ema_momentum": 0.5},
]


def train(kind, *, steps=7, dtype="float32", wrap=None, **settings):
    """Weights and slots after some steps on the same data."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((5,))
    hidden = keras.layers.Dense(4, activation="tanh", name="hidden", dtype=dtype)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="out", dtype="float32")(hidden))
    schedule = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=10)
    optimizer = kind(**({"learning_rate": schedule, "weight_decay": 0.2} | settings))
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(wrap(optimizer) if wrap else optimizer, "mse", jit_compile=False)
    random = np.random.default_rng(0)
    voxels, targets = random.normal(size=(steps * 2, 5)), random.normal(size=(steps * 2, 2))
    model.fit(voxels, targets, batch_size=2, shuffle=False, verbose=0)
    slots = {variable.path.split("/", 1)[-1]: variable.numpy() for variable in optimizer.variables}
    return [weight.numpy() for weight in model.weights], slots


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_weights_and_slots_equal_keras(settings):
    (expected, slots), (actual, ours) = (
        train(kind, **settings) for kind in (keras.optimizers.AdamW, FusedAdamW)
    )
    for weight, keras_weight in zip(actual, expected, strict=True):
        np.testing.assert_allclose(weight, keras_weight, rtol=2e-5, atol=1e-5)
    assert len(ours) == len(slots)  # checkpoints fit both
    for name, keras_slot in slots.items():
        np.testing.assert_allclose(ours[name], keras_slot, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_equals_keras(policy):
    wrap = keras.optimizers.LossScaleOptimizer if policy == "mixed_float16" else None
    expected, actual = (
        train(kind, dtype=policy, wrap=wrap)[0] for kind in (keras.optimizers.AdamW, FusedAdamW)
    )
    for weight, keras_weight in zip(actual, expected, strict=True):
        np.testing.assert_allclose(weight, keras_weight, rtol=1e-4, atol=1e-5)


def test_weight_decay_leaves_excluded_weights_alone():
    decayed, plain = (train(FusedAdamW, weight_decay=decay, steps=1)[0] for decay in (0.9, 0.0))
    for weight, reference in zip(decayed, plain, strict=True):
        assert np.array_equal(weight, reference) == (weight.ndim == 1)


def test_the_step_is_one_kernel_per_weight():
    import tensorflow as tf

    variables = [keras.Variable(np.ones(3, "float32")) for _ in range(4)]
    optimizer = FusedAdamW(0.1)
    optimizer.build(variables)
    graph = tf.function(lambda: optimizer.apply([tf.ones(3)] * 4, variables)).get_concrete_function().graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert kinds.count("ResourceApplyAdam") == 4
    assert kinds.count("Pow") == 2


def test_configuration_is_that_of_keras():
    config = FusedAdamW(0.1, weight_decay=0.3, name="adamw").get_config()
    assert config == keras.optimizers.AdamW(0.1, weight_decay=0.3, name="adamw").get_config()
    again = keras.optimizers.deserialize(keras.optimizers.serialize(FusedAdamW(0.1)))
    assert isinstance(again, FusedAdamW)


def test_an_embedding_is_trained_as_the_equivalent_product_with_one_hot_words():
    words = np.random.default_rng(0).integers(0, 5, (8, 6))  # some several times in one batch, some never

    def train(first, inputs):
        model = keras.Sequential([first, keras.layers.Flatten(), keras.layers.Dense(1)])
        model.build((None, *inputs.shape[1:]))
        model.set_weights([np.full(weight.shape, 0.1, "float32") for weight in model.get_weights()])
        model.compile(FusedAdamW(1e-2), "mse", jit_compile=False)
        model.fit(inputs, np.arange(8.0), batch_size=4, epochs=3, shuffle=False, verbose=0)
        return model.get_weights()

    table = train(keras.layers.Embedding(5, 3), words)
    product = train(keras.layers.Dense(3, use_bias=False), np.eye(5, dtype="float32")[words])
    for one, other in zip(table, product, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)
