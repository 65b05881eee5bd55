"""Tiny finished runs to export."""

import pytest

from tiny import train_tiny


@pytest.fixture(scope="package")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    names = ("slice2d", "slab25d", "volume3d")
    settings = ("trainer.epochs=1", "logger=none")
    return {name: train_tiny(folder, name, f"model={name}", *settings) for name in names}
