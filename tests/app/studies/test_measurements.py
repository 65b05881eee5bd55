"""Measurements on a real tiny network."""

import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from voxlift.app.files import write_json
from voxlift.app.runs.configuration import save_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.studies import measurements
from voxlift.app.studies.gradient_noise import gradient_products
from voxlift.app.studies.measured_training import (
    build_measured_training,
    estimate_step_noise,
    repeat_batches,
    repeat_examples,
)
from voxlift.app.studies.measurements import MEASUREMENTS


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("measured")


@pytest.fixture
def training(place, composed_training):
    return composed_training(
        f"data.folder={place}/data", f"cache.folder={place}/cache", "trainer.batch_size=4"
    )


def test_steps_are_measured_on_real_batches(training):
    answer = MEASUREMENTS["steps"](training, {"steps": 3})
    assert (answer["train_volumes"], answer["steps_per_epoch"], answer["volumes_per_step"]) == (12, 3, 4.0)
    assert answer["volumes_per_second"] == pytest.approx(4 / answer["seconds_per_step"])
    assert len(answer["losses"]) == 3
    assert answer["step_noise"] == pytest.approx(estimate_step_noise(answer["losses"]))
    assert answer["peak_memory_bytes"] >= answer["before_bytes"] > 2**20


def test_a_step_of_accumulated_gradients_is_all_of_its_batches(training):
    training.trainer.batch_size, training.trainer.accumulate = 2, 2
    answer = MEASUREMENTS["steps"](training, {"steps": 3})
    assert (answer["steps_per_epoch"], answer["volumes_per_step"], len(answer["losses"])) == (6, 4.0, 3)
    assert answer["volumes_per_second"] == pytest.approx(4 / answer["seconds_per_step"])


def test_a_size_costs_what_is_counted_and_grows_with_the_volume(training):
    small, large = (MEASUREMENTS["size"](training, {"scale": scale, "steps": 1}) for scale in (1.0, 2.0))
    assert small["shape"] == [8, 12, 16, 1]
    assert large["shape"] == [16, 24, 32, 1]
    assert small["parameters"] == large["parameters"]
    assert large["flops"] == pytest.approx(8 * small["flops"], rel=0.02)
    assert min(large["train_seconds"], large["infer_seconds"]) > 0


def test_equal_networks_have_equal_fingerprints_and_one_that_cannot_be_built_a_problem(training):
    def model(**changes):
        return asdict(replace(training.model, **changes))

    models = {
        "base": model(),
        "three taps": model(depth_kernel=3),
        "one tap": model(depth_kernel=1),
        "no depth left": model(depth_policy="elsewhere"),
    }
    found = MEASUREMENTS["networks"](training, {"models": models})["networks"]
    assert found["base"] == found["three taps"] != found["one tap"]
    assert found["base"]["fingerprint"]
    assert "elsewhere" in found["no depth left"]["problem"]


def test_the_inner_products_of_gradients_are_finite_and_symmetric(training):
    measured = build_measured_training(training)
    batch = next(repeat_batches(measured))
    products = gradient_products(measured.networks.trained, iter([batch, batch, batch]), 3)
    assert products.shape == (3, 3)
    assert np.isfinite(products).all()
    assert np.allclose(products, products.T)


def test_a_batch_that_the_memory_cannot_hold_does_not_fit(training, monkeypatch):
    monkeypatch.setattr(measurements, "limit_memory", lambda limit: f"a comparison with {limit}")
    enough = MEASUREMENTS["fit"](training, {"batch_size": 2, "limit_bytes": 2**45})
    scarce = MEASUREMENTS["fit"](training, {"batch_size": 2, "limit_bytes": 2**20})
    assert (enough["fits"], scarce["fits"]) == (True, False)


def test_a_batch_is_repeated_to_any_length():
    voxels, labels = np.arange(6).reshape(3, 2), np.array([0, 1, 2])
    longer = repeat_examples((voxels, labels), 7)
    assert longer[1].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert longer[0][6].tolist() == voxels[0].tolist()


def test_noise_between_steps_does_not_include_the_trend():
    rng = np.random.default_rng(0)
    falling = np.linspace(5, 1, 4000) + rng.normal(0, 0.1, 4000)
    assert estimate_step_noise(falling) == pytest.approx(0.1, rel=0.05)
    assert math.isnan(estimate_step_noise([1.0]))


def test_a_measuring_process_reads_only_its_folder(tmp_path, training, monkeypatch):
    place = RunFolder(tmp_path)
    save_settings(training, place)
    write_json(tmp_path / "request.json", {"kind": "steps", "steps": 3})
    monkeypatch.setitem(MEASUREMENTS, "steps", lambda settings, _: {"size": settings.trainer.batch_size})
    monkeypatch.setattr("sys.argv", ["measurements", str(tmp_path)])
    assert measurements.main() == 0
    assert Path(tmp_path / "answer.json").read_text(encoding="utf-8").split() == ["{", '"size":', "4", "}"]
