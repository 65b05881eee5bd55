"""Tiny finished runs that the tests of inference share."""

import pytest

from tiny import train_tiny


@pytest.fixture(scope="package")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("prediction")


def run_once(folder, name, *overrides):
    return train_tiny(folder, name, "trainer.epochs=1", "logger=none", *overrides)


@pytest.fixture(scope="package")
def runs(work):
    names = ("slice2d", "slice2d_attention", "slab25d", "volume3d")
    return {name: run_once(work, name, f"model={name}") for name in names}


@pytest.fixture(scope="package")
def train_once(work):
    """Trains one more tiny run, by name and overrides."""
    return lambda name, *overrides: run_once(work, name, *overrides)
