"""The preflight changes nothing that a seed gives, and refuses what cannot fit before it writes."""

import json
import re

import pytest

from tiny import train_tiny
from voxlift.app.config import SettingsError, TrainerSettings, TrainSettings
from voxlift.app.files import read_rows
from voxlift.app.runtime.devices import Memory
from voxlift.app.training.preflight.check import MARGIN, Need, describe_parts, refuse_what_cannot_fit
from voxlift.models.memory import TrainingMemory


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


MB = 10**6


def need(batch, *, per_setting=1, scoring=0):
    memory = TrainingMemory(100 * MB, 100 * MB, 200 * MB, activations=80 * MB, transient=20 * MB)
    return Need(memory, batch * per_setting, per_setting, scoring)


def settings(batch):
    return TrainSettings(trainer=TrainerSettings(batch_size=batch))


def refuse(needed, free, batch):
    refuse_what_cannot_fit(needed, Memory(free, "this machine"), settings(batch), sample="96x96x96")


def test_what_fits_with_a_margin_passes_and_without_it_does_not():
    total = need(8).bytes
    refuse(need(8), int(total / 0.9) + 10, 8)
    with pytest.raises(SettingsError, match=r"trainer\.batch_size=8"):
        refuse(need(8), total, 8)


@pytest.mark.parametrize("per_setting", [1, 4])
def test_the_named_batch_fits_and_accumulation_keeps_the_step(per_setting):
    free = 2000 * MB
    with pytest.raises(SettingsError) as refusal:
        refuse(need(32, per_setting=per_setting), free, 32)
    fitting, steps = map(int, re.findall(r"batch_size=(\d+) (?!\().*accumulate=(\d+)", str(refusal.value))[0])
    refuse(need(fitting, per_setting=per_setting), free, fitting)
    with pytest.raises(SettingsError):
        refuse(need(fitting + 1, per_setting=per_setting), free, fitting + 1)
    assert fitting * steps >= 32 > fitting * (steps - 1)


def test_where_not_even_one_fits_what_to_reduce_is_named():
    with pytest.raises(SettingsError, match=r"preprocess\.shape"):
        refuse(need(2), 300 * MB, 2)


def test_scoring_that_needs_more_than_training_counts():
    heavy = need(2, scoring=3000 * MB)
    assert heavy.bytes == 3000 * MB
    assert describe_parts(heavy).startswith("scoring 3 GB")
    with pytest.raises(SettingsError, match=r"trainer\.batch_size=1 "):
        refuse(heavy, 2000 * MB, 2)
