"""The cases on a comparison's page: volumes with the widest range of scores, each model with its own map."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from voxlift.app.comparison.page import select_disagreements
from voxlift.app.config import SettingsError
from voxlift.app.evaluation.scores import Scores
from voxlift.app.runs.folder import RunFolder
from voxlift.data_pipelines.preprocess.settings import Preprocess

SHAPE, VOLUMES, SHOWN = (4, 6, 8, 1), 8, 6


def scored(probabilities):
    p = np.asarray(probabilities)
    items = tuple(f"{i}.nii" for i in range(VOLUMES))
    return Scores(
        [f"sub-{i}" for i in range(VOLUMES)],
        np.ones(VOLUMES, int),
        np.stack([1 - p, p], 1),
        ("a", "b"),
        items,
    )


@pytest.fixture
def scores(monkeypatch, tmp_path):
    """Two models' scores, further apart from volume to volume, on a cohort of bright spots."""
    files = []
    for i in range(VOLUMES):
        voxels = np.zeros(SHAPE, np.float32)
        voxels[1, 2, 5] = i + 1
        voxels.tofile(tmp_path / f"{i}.raw")
        files.append(tmp_path / f"{i}.raw")
    records = tuple(
        SimpleNamespace(item=f"{i}.nii", images=(tmp_path / f"{i}.nii",), region=None) for i in range(VOLUMES)
    )
    cohort = SimpleNamespace(
        records=records,
        files=files,
        dtype=np.float32,
        shape=SHAPE,
        preprocess=Preprocess(),
        columns=None,
    )
    monkeypatch.setattr("voxlift.app.comparison.page.load_settings", lambda _: None)
    monkeypatch.setattr("voxlift.app.comparison.page.reopen_split", lambda *_, **__: cohort)
    steps = np.linspace(0, 0.4, VOLUMES)
    return {"slice2d": scored(0.5 + steps), "volume3d": scored(0.5 - steps)}


def network():
    inputs = keras.Input(SHAPE)
    features = keras.layers.Conv3D(2, 1, activation="relu", kernel_initializer="ones")(inputs)
    pooled = keras.layers.GlobalAveragePooling3D()(features)
    return keras.Model(inputs, keras.layers.Dense(2, kernel_initializer="ones")(pooled))


def runs_of(scores, folder):
    return {name: RunFolder(folder / name) for name in scores}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_volumes_rated_most_differently_are_shown_with_each_models_map(scores, monkeypatch, tmp_path):
    monkeypatch.setattr("voxlift.app.comparison.page.load_network", lambda _: network())
    found = select_disagreements(scores, runs_of(scores, tmp_path), SHOWN)
    assert [case["slice2d"].subject for case in found] == [f"sub-{7 - i}" for i in range(SHOWN)]
    decided = [found[0][name].decided.split(":")[0].split()[-1] for name in ("slice2d", "volume3d")]
    assert decided == ["b", "a"]
    for case in found[0].values():
        assert [plane.shape for plane in case.maps] == [plane.shape for plane in case.planes]
        assert all(plane.max() == 255 for plane in case.planes)  # cut where the network looked, at the spot


def test_a_network_that_cannot_be_loaded_leaves_the_volumes_plain(scores, monkeypatch, tmp_path):
    def refuse(path):
        raise SettingsError(f"{path}: damaged")

    monkeypatch.setattr("voxlift.app.comparison.page.load_network", refuse)
    found = select_disagreements(scores, runs_of(scores, tmp_path), SHOWN)
    assert len(found) == SHOWN
    assert all(case.maps == () for group in found for case in group.values())
