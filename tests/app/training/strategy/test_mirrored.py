"""Several devices of one host step as one does on the same batch; trainings in processes of their own."""

import numpy as np
import pytest

from commands import run_python
from tiny import places_in
from voxlift.app.config import DevicesSettings, SettingsError, TrainerSettings, TrainSettings, check_settings
from voxlift.app.config.checks import refuse_uneven_batches
from voxlift.app.files import read_rows
from voxlift.app.runs.folder import RunFolder
from voxlift.app.training.input import even_share
from voxlift.app.training.strategy.distribute import prepare_devices

# No batch normalisation in the tutorial's network, and no dropout: what is drawn per device would differ.
TINY = [
    "data.subjects=16",
    "preprocess.shape=[12,14,16]",
    "preprocess.spacing=[5,5,4]",
    "model.baseline=tutorial",
    "augment=none",
    "trainer.epochs=2",
    "trainer.batch_size=4",
    "optimizer.clip_norm=0.1",
    "trainer.ema=0.9",
    "precision=float32",
    "splits.val=0.25",
    "splits.test=0.25",
]


def train(folder, name, *overrides):
    done = run_python("-m", "voxlift.app.cli.train", *TINY, *places_in(folder, name), *overrides)
    return RunFolder(folder / name), done


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "optimizer", "more"),
    [
        ("volume3d", "adamw", ()),
        ("slice2d", "sgd", ()),
        ("volume3d_columns", "adamw", ("model.columns=[age,sex]", "task=number", "data.task=pitch")),
    ],
)
def test_two_devices_train_as_one_on_the_same_batch(model, optimizer, more, tmp_path):
    network = (f"model={model}", f"optimizer={optimizer}", *more)  # clipping shows in plain descent alone
    predicted = "prediction" if more else "p_vessel"
    one, done = train(tmp_path, "one", *network)
    assert done.returncode == 0, done.stderr[-2000:]
    two, done = train(tmp_path, "two", *network, "strategy=mirrored", "devices.logical_cpus=2")
    assert done.returncode == 0, done.stderr[-2000:]
    for file, columns in ((one.history, ("loss", "val_loss")), (one.predictions, (predicted,))):
        ours, theirs = (read_rows(path) for path in (file, two.path / file.name))
        for column in columns:
            np.testing.assert_allclose(
                [float(row[column]) for row in ours],
                [float(row[column]) for row in theirs],
                rtol=1e-5,
                atol=1e-5,
            )


@pytest.mark.parametrize(
    ("batch", "devices", "named"), [(8, 3, "6 or 9"), (1, 2, "choose 2"), (7, 2, "6 or 8")]
)
def test_a_batch_that_cannot_be_shared_evenly_names_the_nearest(batch, devices, named):
    refuse_uneven_batches(devices * batch, devices)
    with pytest.raises(SettingsError, match=named):
        refuse_uneven_batches(batch, devices)


def test_fewer_samples_than_devices_are_refused():
    assert even_share(7, 2) == 6
    with pytest.raises(SettingsError, match="a sample for each of 4 devices"):
        even_share(3, 4)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (TrainSettings(strategy="many"), "expected one of single, mirrored, hosts"),
        (TrainSettings(strategy="mirrored", trainer=TrainerSettings(accumulate=2)), "trainer.accumulate"),
        (TrainSettings(devices=DevicesSettings(logical_cpus=2)), "devices.logical_cpus"),
    ],
)
def test_what_cannot_be_distributed_is_refused_before_anything_starts(settings, named):
    with pytest.raises(SettingsError, match=named):
        check_settings(settings)


def test_a_host_without_gpus_names_how_to_try_it():
    with pytest.raises(
        SettingsError, match=r"at least two GPUs on this host, found 0.*devices\.logical_cpus=2"
    ):
        prepare_devices(TrainSettings(strategy="mirrored"))


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(SettingsError, match="KERAS_BACKEND=jax"):
        prepare_devices(TrainSettings(strategy="mirrored"))


STATISTICS = """
import keras, numpy as np, tensorflow as tf
from voxlift.app.training.networks import Networks
from voxlift.app.config import DevicesSettings, TrainSettings
from voxlift.app.training.strategy.distribute import build_distributed, prepare_devices
from voxlift.models.layers import FusedBatchNormalization

settings = TrainSettings(strategy="mirrored", devices=DevicesSettings(logical_cpus=2))
prepare_devices(settings)
inputs = keras.Input((3, 4, 5, 1))
voxels = np.random.default_rng(0).normal(size=(4, 3, 4, 5, 1)).astype("float32")
voxels[2:] += 10  # the second device sees other values than the first

def build():
    x = FusedBatchNormalization(momentum=0.5, name="norm")(inputs)
    network = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling3D()(x)))
    network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return Networks(network, network)

means = []
for networks in (build(), build_distributed(settings, build)):
    batches = tf.data.Dataset.from_tensors((voxels, np.array([0, 1, 0, 1])))
    networks.trained.fit(batches, epochs=2, shuffle=False, verbose=0)
    means.append(keras.ops.convert_to_numpy(networks.trained.get_layer("norm").moving_mean))
    assert networks.volume.predict(voxels[:3], verbose=0).shape == (3, 2)  # fewer than an even share
np.testing.assert_allclose(*means, rtol=1e-5)
assert means[0] > 3
"""


@pytest.mark.slow
def test_moving_statistics_are_those_of_all_devices():
    done = run_python("-c", STATISTICS)
    assert done.returncode == 0, done.stderr[-2000:]
