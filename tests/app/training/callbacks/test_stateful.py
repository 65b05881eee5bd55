"""A training interrupted within an epoch, or after its last batch, ends like one that was not."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from voxlift.app.config import OptimizerSettings, TrainerSettings
from voxlift.app.files import read_rows
from voxlift.app.training.callbacks.monitoring import EarlyStopping
from voxlift.app.training.callbacks.recording import WriteHistory
from voxlift.app.training.callbacks.stateful import StepCounter
from voxlift.app.training.checkpoints import Checkpoints, Position
from voxlift.app.training.fit_loop import NetworkFit, fit_network
from voxlift.models.baselines import build_baseline
from voxlift.models.losses import build_loss

RNG = np.random.default_rng(0)
VOXELS, LABELS = RNG.normal(size=(8, 8, 10, 1)).astype("float32"), np.arange(8) % 2
STEPS, EPOCHS = 4, 2  # of two examples each


class Killed(Exception):  # noqa: N818 - what a SIGKILL would be
    """The process ends here."""


class KillAt(keras.callbacks.Callback):
    """Ends a training behind its n-th batch, or before the end of an epoch is saved."""

    def __init__(self, batch=0, epoch_end=0):
        super().__init__()
        self.batch, self.epoch_end, self.batches = batch, epoch_end, 0

    def on_train_batch_end(self, batch, logs=None):  # noqa: ARG002 - the signature of Keras
        self.batches += 1
        if self.batches == self.batch:
            raise Killed

    def on_epoch_end(self, epoch, logs=None):  # noqa: ARG002 - the signature of Keras
        if epoch + 1 == self.epoch_end:
            raise Killed


def stream(at):
    rows = tf.data.Dataset.from_tensor_slices((VOXELS, LABELS, np.ones(8, np.float32)))
    return rows.batch(2).repeat(EPOCHS).skip(at.epoch * STEPS + at.step)


def train(folder, kill=None):
    """The history and the weights of a training that resumes from what `folder` holds."""
    keras.utils.set_random_seed(3)
    network = build_baseline("cnn", input_shape=(8, 10, 1), classes=2, filters=(2, 3, 4))
    counter, keep, trainer = (
        StepCounter(),
        EarlyStopping("loss", patience=0),
        TrainerSettings(EPOCHS, checkpoint_steps=2),
    )
    task = NetworkFit(
        network, stream, STEPS, build_loss(classes=2), optimizer=OptimizerSettings(), trainer=trainer
    )
    history = WriteHistory(folder / "history.csv")
    fit_network(
        task,
        counter=counter,
        keep=keep,
        callbacks=[counter, *([kill] if kill else []), history, keep],
        checkpoints=Checkpoints(folder / "checkpoints"),
    )
    rows = [{key: row[key] for key in row if key != "seconds"} for row in read_rows(history.path)]
    return rows, network.get_weights()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return train(tmp_path_factory.mktemp("uninterrupted"))


@pytest.mark.parametrize(
    ("kill", "expected"),
    [
        (KillAt(batch=3), Position(0, 2)),
        (KillAt(epoch_end=1), Position(0, 2)),  # all four batches done, the epoch's end not saved
        (KillAt(batch=7), Position(1, 2)),
        (KillAt(epoch_end=2), Position(1, 2)),
    ],
    ids=["within an epoch", "before an epoch's end", "within the last epoch", "before the last epoch's end"],
)
def test_an_interrupted_training_ends_like_one_that_was_not(kill, expected, uninterrupted, tmp_path):
    with pytest.raises(Killed):
        train(tmp_path, kill)
    assert Checkpoints(tmp_path / "checkpoints").load().position == expected
    rows, weights = train(tmp_path)
    assert rows == uninterrupted[0]
    for ours, theirs in zip(weights, uninterrupted[1], strict=True):
        np.testing.assert_array_equal(ours, theirs)
