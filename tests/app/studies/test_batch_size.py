"""The study of the batch size with a stand-in for trainings, and the search for the largest batch."""

import csv
import itertools
import json
import math

import pytest

from voxlift.app.config import SettingsError
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runtime.exit_status import TIMED_OUT
from voxlift.app.studies.batch_size.memory import bisect_largest, fit_peak_memory
from voxlift.app.studies.batch_size.points import build_points, scale_rate
from voxlift.app.studies.gradient_noise import NoiseScale

LIMIT = 40  # volumes that fit into the memory of the stand-in
STUDY = [
    "study=batch_size",
    "trainer.batch_size=8",
    "study.batch_sizes=[4,16]",
    "study.seeds=[0,1]",
    "study.epochs=6",
    "study.largest=100",
    "study.memory_gb=1",
    "run_dir=out",
]
SHORT = [*STUDY, "study.seeds=[0]", "study.scaling=[none]", "study.equal=[epochs]"]  # 3 trainings, not 18


def answer_steps(_, place):
    trainer = load_settings(place).trainer
    size = trainer.batch_size * trainer.accumulate
    losses = [0.7, 0.6, 0.5]
    return {
        "train_volumes": 100,
        "steps_per_epoch": 100 // size,
        "device": "CPU",
        "seconds_per_step": 0.1,
        "volumes_per_step": size,
        "volumes_per_second": 10.0 * size,
        "step_noise": 1 / math.sqrt(size),
        "losses": losses,
        "peak_memory_bytes": 2**29 + trainer.batch_size * 2**23,
        "before_bytes": 2**29,
        "load_per_core": 0.1,
    }


def answer_fit(request, _):
    return {"fits": request["batch_size"] <= LIMIT, "how": "a stand-in", "reason": ""}


def answer_noise(*_):
    return {when: vars(NoiseScale(12.0, 8.0, 18.0, 24.0, 2.0)) for when in ("start", "trained")}


ANSWERS = {"steps": answer_steps, "fit": answer_fit, "noise": answer_noise}


def score(settings):
    """Batches of 16 are bad; the others are alike."""
    return 0.1 if settings.trainer.batch_size == 16 else 1.0


@pytest.fixture(scope="module")
def folder(study_once):
    return study_once(STUDY, score, ANSWERS)[1]


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_every_size_rule_and_length_of_training(folder):
    rows = {row["point"]: row for row in read(folder / "table.csv")}
    assert set(rows) == {"batch8"} | {
        f"batch{size}-{rule}-{equal}"
        for size in (4, 16)
        for rule in ("none", "sqrt")
        for equal in ("epochs", "steps")
    }
    assert rows["batch16-none-steps"]["epochs"] == "12"  # 72 steps of the reference at 6 an epoch
    assert rows["batch4-none-steps"]["steps"] == "75"  # nearest whole number of epochs of 25 steps
    assert float(rows["batch16-sqrt-epochs"]["learning_rate"]) == pytest.approx(2e-3 * math.sqrt(2))
    assert float(rows["batch16-none-epochs"]["difference_high"]) < 0
    assert all(row["seeds"] == "2" for row in rows.values())


def test_the_recommendation_follows_from_the_table(folder):
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    # 16 is fastest but shown to be worse; of 4 and 8, which score alike, 8 is faster.
    assert "trainer.batch_size=8" in results["recommendation"]
    assert any("worse" in finding and "batch8: 16 with" in finding for finding in results["findings"])
    assert results["memory"]["fits"] <= LIMIT < results["memory"]["fails"] <= LIMIT * 1.1 + 1
    assert any("trainer.accumulate=" in finding for finding in results["findings"])
    assert any("12 examples" in finding and "[8, 18]" in finding for finding in results["findings"])


def test_the_largest_batch_is_measured_with_microbatches_too(folder):
    rows = {(row["batch_size"], row["accumulate"]): row for row in read(folder / "cost.csv")}
    assert set(rows) == {("4", "1"), ("8", "1"), ("16", "1"), ("4", "4")}
    assert rows["4", "4"]["volumes_per_step"] == "16"
    assert rows["4", "4"]["peak_memory_bytes"] == rows["4", "1"]["peak_memory_bytes"]
    findings = json.loads((folder / "results.json").read_text(encoding="utf-8"))["findings"]
    assert any(
        "16 as 4 x 4" in one and "trainer.batch_size=4 trainer.accumulate=4" in one for one in findings
    )
    assert "accumulated" in (folder / "report.html").read_text(encoding="utf-8")


def test_only_a_batch_that_the_memory_holds_is_recommended(stand_in, run_study):
    few = ANSWERS | {"fit": lambda request, _: answer_fit(request, _) | {"fits": request["batch_size"] <= 5}}
    stand_in(lambda _: 1.0, few)
    results = json.loads((run_study(*SHORT) / "results.json").read_text(encoding="utf-8"))
    assert "trainer.batch_size=4 " in results["recommendation"]
    assert any("trainer.batch_size=5 trainer.accumulate=2" in one for one in results["findings"])


def test_a_trial_that_fails_for_another_reason_ends_the_search_without_a_limit(stand_in, run_study):
    one = stand_in(lambda _: 1.0, ANSWERS)
    one.failures = {"fit-55": (TIMED_OUT, "no end within 600 s")}
    folder = run_study(*SHORT)
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["memory"]["fits"] == 0
    assert results["memory"]["fails"] is None
    assert results["memory"]["unanswered"] == 55
    assert any("batch of 55" in one and "no end within 600 s" in one for one in results["findings"])
    assert "no end within 600 s" in (folder / "report.html").read_text(encoding="utf-8")
    assert "trainer.batch_size=16" in results["recommendation"]  # the fastest, not known to fail
    assert not (folder / "measurements" / "fit-55" / "answer.json").exists()  # the next call tries again


def test_the_page_begins_with_the_recommendation_and_lists_varied_and_fixed_settings(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.index("trainer.batch_size=8") < page.index("none, sqrt") < page.index("model.depth_policy")
    assert "src=" not in page
    for name in ("scores", "cost", "stability"):
        assert (folder / "figures" / f"{name}.svg").stat().st_size > 1000
        assert (folder / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


def test_a_killed_study_resumes_with_what_is_missing(stand_in, run_study):
    one = stand_in(score, ANSWERS)

    def interrupt(name):
        if name == "batch16-none-epochs-seed0":
            raise KeyboardInterrupt

    one.before = interrupt
    with pytest.raises(KeyboardInterrupt):
        run_study(*SHORT)
    trained, measured = list(one.trained), list(one.measured)
    one.before = lambda _: None
    run_study(*SHORT)
    assert trained
    assert len(one.trained) == len(set(one.trained)) == 3  # none twice
    assert len(one.measured) == len(set(one.measured)) > len(measured)


def test_a_failed_training_is_a_finding_and_the_others_are_used(stand_in, run_study):
    stand_in(lambda settings: None if settings.trainer.batch_size == 4 else 1.0, ANSWERS)
    folder = run_study(*SHORT)
    findings = json.loads((folder / "results.json").read_text(encoding="utf-8"))["findings"]
    assert any("batch4-none-epochs-seed0" in finding and "the reason" in finding for finding in findings)
    assert len(read(folder / "table.csv")) == 2


def test_all_trainings_failing_is_an_error_with_the_first_reason(stand_in, run_study):
    stand_in(lambda _: None, ANSWERS)
    with pytest.raises(SettingsError, match=r"3 trainings.*the reason"):
        run_study(*SHORT)


def test_a_seed_of_the_study_is_not_set_twice(stand_in, run_study):
    stand_in(score, ANSWERS)
    with pytest.raises(SettingsError, match=r"^seed: .*study\.seeds"):
        run_study(*STUDY, "seed=3")


def test_sgd_scales_in_proportion(composed):
    with composed("study=batch_size", "optimizer=sgd", "study.batch_sizes=[32]") as settings:
        points = build_points(settings, [8, 32], steps_per_epoch={8: 18, 32: 4})
    rates = {point.scaling: point.learning_rate for point in points}
    assert rates == {"none": 0.05, "linear": 0.2}
    assert scale_rate("sqrt", 0.25) == 0.5


def test_the_exact_boundary_is_found_with_few_trials():
    for truth, first in itertools.product(range(65), (1, 4)):
        found = bisect_largest(
            lambda number, truth=truth: number <= truth, first=first, most=64, precision=0.0
        )
        numbers = [number for number, _ in found.tried]
        assert (found.fits, found.fails) == (truth, None if truth == 64 else truth + 1)
        assert len(numbers) == len(set(numbers)) <= 14
        assert found.tried == tuple((number, number <= truth) for number in numbers)


def test_a_coarse_search_ends_within_its_precision():
    found = bisect_largest(lambda n: n <= 700, first=8, most=10_000, precision=0.1)
    assert found.fits <= 700 < found.fails <= found.fits * 1.1 + 1


def test_no_answer_ends_the_search_and_is_no_limit():
    found = bisect_largest(lambda n: None if n == 32 else n < 50, first=8, most=64)
    assert (found.fits, found.fails, found.unanswered) == (16, None, 32)
    assert found.may_fit(64)
    found = bisect_largest(lambda n: None if n == 4 else n < 2, first=8, most=64)
    assert (found.fits, found.fails, found.unanswered) == (0, 8, 4)
    assert found.may_fit(7)
    assert not found.may_fit(8)


def test_memory_per_volume_is_the_slope():
    base, slope = fit_peak_memory({4: {"peak_memory_bytes": 140.0}, 8: {"peak_memory_bytes": 180.0}})
    assert (base, slope) == (pytest.approx(100.0), pytest.approx(10.0))
