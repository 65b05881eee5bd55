"""The refusal of what cannot fit: with a batch that would, or with what to shrink."""

import re

import pytest

from voxlift.app.config import SettingsError, TrainerSettings, TrainSettings
from voxlift.app.runtime.devices import Memory
from voxlift.app.training.preflight.check import Need, describe_parts, refuse_what_cannot_fit
from voxlift.models.memory import TrainingMemory

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
