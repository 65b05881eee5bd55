"""Promises of the training stream: what it hands over, how many steps it has, what it warns of."""

import logging

import keras
import numpy as np
import pytest

from voxlift.app.config import ModelSettings, TrainerSettings, TrainSettings
from voxlift.app.data.cohort import Cohort
from voxlift.app.data.sources import read_augment
from voxlift.app.training.input import TrainingInput, warn_of_mirrors
from voxlift.app.training.networks import build_networks, input_spec
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.tables.manifest import Record

SHAPE = (6, 8, 10, 1)
POLICIES = ["float32", "mixed_bfloat16"]  # a CPU has no float16 pooling


def cohort_of(tmp_path, dtype="float16", count=8):
    """Volumes whose voxels are whole numbers, so that every type holds them."""
    rng, files = np.random.default_rng(0), []
    for index in range(count):
        files.append(tmp_path / f"{index}.{dtype}")
        rng.integers(0, 50, SHAPE).astype(dtype).tofile(files[-1])
    records = tuple(Record(f"s{i}", (file,), i % 2, None, i) for i, file in enumerate(files))
    return Cohort(records, ("a", "b"), ("train",) * count, tuple(files), SHAPE, dtype, Preprocess())


def settings_of(augment=None, **model):
    return TrainSettings(
        model=ModelSettings(**{"name": "m", "kind": "slice", "filters": [4, 6, 8]} | model),
        trainer=TrainerSettings(epochs=2, batch_size=2),
        augment=augment or {},
    )


@pytest.fixture
def policy(request):
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("policy", POLICIES, indirect=True)
@pytest.mark.usefixtures("policy")
@pytest.mark.parametrize("dtype", ["float16", "uint8", "int16"])
@pytest.mark.parametrize("model", [{}, {"aggregate": "attention"}, {"kind": "volume"}])
def test_the_network_casts_stored_voxels_at_its_door_without_loss(dtype, model, tmp_path):
    cohort = cohort_of(tmp_path, dtype)
    settings = settings_of(**model)
    network = build_networks(settings.model, input_spec(cohort)).trained
    voxels, _, _ = next(iter(TrainingInput(settings, cohort).batches))
    assert voxels.dtype.name == dtype
    as_float32 = network(voxels.numpy().astype(np.float32), training=False)
    np.testing.assert_array_equal(network(voxels, training=False), as_float32)


@pytest.mark.parametrize(("slices", "steps"), [("all", 8 * 6 // 2), ("central", 8 * 3 // 2)])
def test_a_slice_model_trains_on_the_slices_that_it_scores(slices, steps, tmp_path):
    feed = TrainingInput(settings_of(slices=slices), cohort_of(tmp_path))
    assert feed.steps_per_epoch == steps
    assert sum(1 for _ in feed.batches) == 2 * steps


def test_attention_sees_whole_volumes_and_picks_slices_itself(tmp_path):
    feed = TrainingInput(settings_of(slices="central", aggregate="attention"), cohort_of(tmp_path))
    assert feed.steps_per_epoch == 4


def test_an_augmented_stream_is_float32(tmp_path):
    feed = TrainingInput(settings_of({"shift_prob": 1.0, "shift_voxels": [1, 1, 1]}), cohort_of(tmp_path))
    assert feed.batches.element_spec[0].dtype == "float32"


@pytest.mark.parametrize(
    ("augment", "warned"),
    [
        ({"flip_prob": [0.0, 0.0, 0.5]}, True),
        ({"flip_prob": [0.0, 0.0, 0.5], "keep_handedness": True}, False),
        ({"permute_prob": 1.0}, True),
        ({"turn_prob": [0.5, 0.0, 0.0]}, False),
    ],
)
def test_mirroring_is_warned_of_with_the_key_that_stops_it(augment, warned, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("voxlift"), "propagate", True)
    warn_of_mirrors(read_augment(augment), ("benign", "malign"))
    assert ("augment.keep_handedness=true" in caplog.text) is warned


def test_mirroring_names_classes_that_are_sides(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("voxlift"), "propagate", True)
    classes = ("kidney-right", "liver", "kidney-left", "femur_L", "femur_R", "control", "righteous")
    warn_of_mirrors(read_augment({"flip_prob": [0.0, 0.0, 0.5]}), classes)
    assert "kidney-right, kidney-left, femur_L, femur_R" in caplog.text
