"""A lifted network trains, under each precision policy and on each backend."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

from voxlift.models.lifting import to_3d

NAMES = ("stem", "depthwise", "separable", "head")


def _lifted():
    image = keras.Input((10, 12, 2))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    # No pooling: TensorFlow has no kernel for float16 volumes on a CPU.
    x = layers.SeparableConv2D(4, 3, strides=2, padding="same", name="separable")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return to_3d(keras.Model(image, layers.Dense(2, name="head")(x)), depth=8, init="mean")


def _train(model, *, steps=1):
    volumes = np.random.default_rng(0).normal(size=(4, 8, 10, 12, 2)).astype("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=False)
    before = {name: model.get_layer(name).get_weights()[0] for name in NAMES}
    history = model.fit(volumes, np.array([0, 1, 0, 1]), batch_size=4, epochs=steps, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert keras.backend.standardize_dtype(model(volumes).dtype) == "float32"
    for name in NAMES:
        weights = model.get_layer(name).get_weights()[0]
        assert np.isfinite(weights).all()
        assert np.abs(weights - before[name]).max() > 0, name


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_a_lifted_network_trains_in_each_precision(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = _lifted()
        assert model.get_layer("stem").dtype_policy.name == policy
        # The loss scale of float16 starts high: its first steps may overflow, and are left out then.
        _train(model, steps=4 if policy == "mixed_float16" else 1)
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.slow
def test_a_lifted_network_trains_on_jax():
    script = (
        "import importlib.util, sys, keras\n"
        "spec = importlib.util.spec_from_file_location('training', sys.argv[1])\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "module._train(module._lifted())\n"
        "print(keras.backend.backend())\n"
    )
    pytest.importorskip("jax")
    done = subprocess.run(
        [sys.executable, "-c", script, __file__],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "jax"
