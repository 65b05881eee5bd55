"""Memory and time by `preprocess.budget` are measured without the images, and scaled where time is short."""

import pytest

from commands import compose_command, run_python
from voxlift.app.config import TrainSettings
from voxlift.app.config.overrides import to_settings
from voxlift.app.files import read_json, write_json
from voxlift.app.runs.configuration import save_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.training.preflight import budgets
from voxlift.app.training.preflight.budgets import BudgetCost, describe_costs, measure_budgets

GRIDS = {64: (6, 8, 10), 96: (12, 16, 20), 128: (12, 16, 20)}


def compose_model(name):
    """Settings of a small training."""
    overrides = (f"model={name}", "model.filters=[2,2,2]", "trainer.batch_size=2", "precision=float32")
    return to_settings(compose_command("train", *overrides), TrainSettings)


@pytest.mark.slow
def test_each_model_has_its_cost_at_each_grid(tmp_path):
    for model in ("slice2d", "volume3d"):
        (tmp_path / model).mkdir()
        save_settings(compose_model(model), RunFolder(tmp_path / model))
    grids = {str(key): list(shape) for key, shape in GRIDS.items()}
    write_json(tmp_path / budgets.REQUEST, {"grids": grids, "volumes": 4, "channels": 2})
    done = run_python("-m", budgets.__name__, str(tmp_path), cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    costs = [BudgetCost(**one) for one in read_json(tmp_path / budgets.ANSWER)["costs"]]
    assert [(one.model, one.budget) for one in costs] == [
        (model, budget) for model in ("slice2d", "volume3d") for budget in GRIDS
    ]
    for small, large, same in (costs[:3], costs[3:]):
        assert 0 < small.memory < large.memory == same.memory
        assert small.is_measured
        assert 0 < large.epoch_seconds == same.epoch_seconds
    lines = describe_costs([BudgetCost(**{**vars(one), "shape": tuple(one.shape)}) for one in costs])
    assert len(lines) == 2
    assert all("96 or 128 (12x16x20)" in line for line in lines)


def test_nothing_is_measured_where_an_epoch_is_short_or_no_network_is_trained():
    trainings = {"volume3d": compose_model("volume3d")}
    assert measure_budgets(trainings, GRIDS, volumes=10) == []
    linear = {"linear": to_settings(compose_command("train", "model=linear"), TrainSettings)}
    assert measure_budgets(linear, GRIDS, volumes=10**9) == []
