"""The precisions agree: on a fixed task they learn the same."""

import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from voxlift.app.config import OptimizerSettings, TrainerSettings
from voxlift.app.runtime.setup import protect_pooling, protect_shallow_convolutions
from voxlift.app.training.fit_loop import NetworkFit, compile_network
from voxlift.models.baselines import build_baseline
from voxlift.models.lifting import plan_lift
from voxlift.models.losses import build_loss

SHAPE = (8, 10, 12, 1)


def task_of_blobs(count, seed):
    """Volumes of noise; those of class 1 hold a bright box somewhere."""
    rng = np.random.default_rng(seed)
    voxels = rng.normal(0, 0.5, (count, *SHAPE)).astype("float32")
    labels = np.arange(count) % 2
    for index in np.flatnonzero(labels):
        z, y, x = (rng.integers(0, side - 4) for side in SHAPE[:3])
        voxels[index, z : z + 4, y : y + 4, x : x + 4] += 1.0
    return voxels, labels


def score_of(policy):
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(0)
    flat = build_baseline("cnn", input_shape=SHAPE[1:], classes=2, filters=(4, 6, 8), dropout=0.0)
    network = plan_lift(flat, depth=SHAPE[0], depth_policy="isotropic", init="random").build()
    protect_shallow_convolutions(network)
    protect_pooling(network)
    voxels, labels = task_of_blobs(48, seed=1)
    trainer = TrainerSettings(epochs=12)
    optimizer = OptimizerSettings(learning_rate=0.01)
    compile_network(NetworkFit(network, lambda _: None, 6, build_loss(classes=2), optimizer, trainer))
    network.fit(voxels, labels, batch_size=8, epochs=12, shuffle=False, verbose=0)
    unseen, truth = task_of_blobs(40, seed=2)
    logits = np.asarray(network.predict(unseen, verbose=0))
    assert logits.dtype == np.float32
    return roc_auc_score(truth, logits[:, 1] - logits[:, 0])


@pytest.fixture(scope="module")
def reference():
    score = score_of("float32")
    assert score > 0.95
    return score


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_half_precision_reaches_the_score_of_float32(policy, reference):
    assert score_of(policy) == pytest.approx(reference, abs=0.02)
