"""Tiny finished runs that the tests of prediction and export share."""

import pytest
from hydra import compose, initialize_config_module

from app.runs import RunFolder
from app.settings import register_schemas
from app.train import read_settings, train

TINY = [
    "data.subjects=16",
    "preprocess.shape=[8,12,16]",
    "preprocess.spacing=[8,5,4]",
    "model.filters=[4,6,8]",
    "trainer.epochs=1",
    "trainer.batch_size=4",
    "precision=float32",
    "splits.val=0.25",
    "splits.test=0.25",
    "logger=none",
]


@pytest.fixture(scope="package")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("prediction")


def run_once(folder, name, *overrides):
    register_schemas()
    places = [f"data.folder={folder}/data", f"cache.folder={folder}/cache", f"run_dir={folder}/{name}"]
    with initialize_config_module("conf", version_base="1.3"):
        assert train(read_settings(compose("train", overrides=[*TINY, *places, *overrides]))) == 0
    return RunFolder(folder / name)


@pytest.fixture(scope="package")
def runs(work):
    names = ("slice2d", "slice2d_attention", "slab25d", "volume3d")
    return {name: run_once(work, name, f"model={name}") for name in names}


@pytest.fixture(scope="package")
def train_once(work):
    """Trains one more tiny run, by name and overrides."""
    return lambda name, *overrides: run_once(work, name, *overrides)
