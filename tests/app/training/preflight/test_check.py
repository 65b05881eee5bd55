"""The preflight of whole runs: it changes nothing that a seed gives, and refuses before it writes."""

import json

import pytest

from tiny import train_tiny
from voxlift.app.config import SettingsError
from voxlift.app.files import read_rows
from voxlift.app.runtime.devices import Memory
from voxlift.app.training.preflight.check import MARGIN


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


def losses(found):
    return [(row["loss"], row["val_loss"]) for row in read_rows(found.history)]


@pytest.mark.parametrize("model", [pytest.param("slice2d", marks=pytest.mark.slow), "volume3d"])
def test_the_same_history_with_and_without(model, folder, monkeypatch):
    monkeypatch.setattr(
        "voxlift.app.training.preflight.check.SHORT_SECONDS", 0.0
    )  # else the rates of tiny runs are not tried
    name = f"model={model}"
    with_it = train_tiny(
        folder, f"{model}-with", name, "preflight.overfit_batch=true", "optimizer.learning_rate=0.02"
    )
    without = train_tiny(
        folder, f"{model}-without", name, "preflight.enabled=false", "optimizer.learning_rate=0.02"
    )
    assert losses(with_it) == losses(without)
    assert not without.preflight.exists()
    (found,) = json.loads(with_it.preflight.read_text(encoding="utf-8"))["trainings"]
    assert found["rates"]["bottleneck"] in {"input", "compute"}
    assert found["memory"]["bytes"] < found["memory"]["free"]
    assert found["stages"][0]["sides"] == ([12, 16] if model == "slice2d" else [8, 12, 16])
    assert len(found["overfit_losses"]) == 60


def test_both_trainings_of_an_inflation_are_looked_over_before_the_first(folder):
    found = json.loads(
        train_tiny(folder, "inflated", "experiment=inflated").preflight.read_text(encoding="utf-8")
    )["trainings"]
    assert [len(training["stages"][0]["sides"]) for training in found] == [2, 3]


def test_what_cannot_fit_is_refused_before_a_folder_is_made(folder, monkeypatch):
    engine, three_of_four = 28_000_000, 400_000
    memory = Memory(int((engine + three_of_four) / MARGIN), "this machine")
    monkeypatch.setattr("voxlift.app.training.preflight.check.find_free_memory", lambda: memory)
    with pytest.raises(SettingsError, match=r"trainer\.batch_size=\d would fit"):
        train_tiny(folder, "refused")
    assert not (folder / "refused").exists()
