"""Saved networks of our layers load in a new process and give the same numbers on JAX as on TensorFlow."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from voxlift.models.baselines import build_baseline
from voxlift.models.layers import (
    ACSConv3D,
    DepthwiseConv3D,
    FewPositionsConv3D,
    FusedBatchNormalization,
    RepeatingConcatenate3D,
    SeparableConv3D,
    TokenAttention3D,
    TokenEmbedding3D,
    TrilinearUpSampling3D,
)
from voxlift.models.slice_model import wrap_slices

# TensorFlow's variables do not accept numpy 2's copy keyword, which Keras passes when it saves.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# The import of the layers registers them: loading and a training step need nothing else.
SCRIPT = """
import keras
import numpy as np
import voxlift.models.layers
from keras import ops
from voxlift.models import backend

folder = sys.argv[1]
model = keras.models.load_model(f"{folder}/model.keras")
slices = keras.models.load_model(f"{folder}/slices.keras")
tokens = keras.models.load_model(f"{folder}/tokens.keras")
voxels, weights = np.load(f"{folder}/voxels.npy"), np.load(f"{folder}/weights.npy")
state = [v.value for v in model.non_trainable_variables]

def loss(inputs, *trainable):
    return ops.sum(model.stateless_call(list(trainable), state, inputs, training=True)[0] * weights)

def differentiate(*tensors):
    return backend.value_and_gradients(loss, *tensors)

if keras.backend.backend() == "jax":  # one compilation instead of one per operation
    import jax
    differentiate = jax.jit(differentiate)

value, gradients = differentiate(voxels, *[v.value for v in model.trainable_variables])
results = [each.predict_on_batch(voxels) for each in (model, slices, tokens)] + [value, *gradients]
model.compile(keras.optimizers.SGD(0.0), "mse")
model.train_on_batch(voxels, weights)  # updates the moving averages
results += [variable.value for variable in model.non_trainable_variables]
np.savez(f"{folder}/{keras.backend.backend()}.npz", *[ops.convert_to_numpy(result) for result in results])
"""


@pytest.fixture(name="folder", scope="module")
def folder_fixture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backends")
    inputs = keras.Input((6, 5, 7, 3))
    x = SeparableConv3D(4, 3, strides=(1, 2, 2), padding="same", name="separable")(inputs)
    x = FusedBatchNormalization(momentum=0.5)(x)
    x = DepthwiseConv3D(3, strides=(2, 1, 1), dilation_rate=(1, 2, 2), padding="same")(x)
    x = ACSConv3D(5, 3, strides=2, padding="same", activation="tanh")(x)
    x = ACSConv3D(6, 2, padding="valid")(TrilinearUpSampling3D((2, 3, 1))(x))
    x = FewPositionsConv3D(3, (2, 2, 1))(x)
    pooled = keras.layers.MaxPooling3D((x.shape[1], 1, 1))(x)
    model = keras.Model(inputs, RepeatingConcatenate3D()([x, pooled]))
    random = np.random.default_rng(0)
    np.save(folder / "voxels.npy", random.normal(size=(2, 6, 5, 7, 3)).astype("float32"))
    np.save(folder / "weights.npy", random.normal(size=(2, *model.output_shape[1:])).astype("float32"))
    model.save(folder / "model.keras")
    network = build_baseline("cnn", input_shape=(5, 7, 9), classes=2, filters=(3, 4, 5))
    slices = wrap_slices(network, depth=6, slab=3, aggregate="attention", slices="foreground")
    slices.save(folder / "slices.keras")
    x = keras.layers.Conv3D(8, (3, 5, 1), (3, 5, 1))(inputs)
    x = TokenEmbedding3D(2, prefix=1)(keras.layers.Reshape((14, 8))(x))
    keras.Model(inputs, TokenAttention3D(2, 4, planes=2, prefix=1)(x, x)).save(folder / "tokens.keras")
    return folder


def run_on_jax(folder):
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path.cwd() / "src"),
    }
    command = [sys.executable, "-c", "import sys\n" + SCRIPT, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the extra jax")
def test_saved_networks_give_the_same_numbers_on_both_backends(folder):
    run_on_jax(folder)
    exec(SCRIPT, {"sys": SimpleNamespace(argv=["", str(folder)])})  # noqa: S102  # the same on TensorFlow
    on_jax, on_tensorflow = (np.load(folder / f"{name}.npz") for name in ("jax", "tensorflow"))
    assert len(on_jax.files) == 3 + 1 + 14 + 2  # outputs, loss, gradients, moving averages
    for name in on_jax.files:
        ours, theirs = on_jax[name], on_tensorflow[name]
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= 1e-4 * max(np.abs(theirs).max(), 1.0)
