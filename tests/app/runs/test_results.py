"""Results are read from a run's folder as they were written, decided at the threshold of its validation."""

import json

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from score_sets import build_scores
from voxlift.app.config import DataSettings, ModelSettings, PreprocessSettings, TrainSettings
from voxlift.app.evaluation.calibration import Calibration
from voxlift.app.evaluation.evaluate import evaluate_splits
from voxlift.app.evaluation.scores import Scores
from voxlift.app.files import read_rows, write_json, write_rows
from voxlift.app.runs.configuration import save_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.results import (
    assess_learning,
    describe_learning,
    prediction_rows,
    read_calibration,
    read_history,
    read_scores,
    scores_from_rows,
)


def scores_of(seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(30) % 2
    p_yes = 1 / (1 + np.exp(-4 * (labels - 0.5) - 2 * rng.normal(size=30)))
    scores = build_scores(labels, p_yes)
    return type(scores)(scores.subjects, labels, scores.probabilities, scores.classes, scores.subjects)


@pytest.fixture
def run(tmp_path):
    """The results of a run without a network."""
    scores = {"val": scores_of(0), "test": scores_of(1)}
    run = RunFolder(tmp_path)
    settings = TrainSettings(
        data=DataSettings(name="phantom", classes=["no", "yes"]),
        preprocess=PreprocessSettings(name="none"),
        model=ModelSettings(name="volume3d", kind="volume"),
    )
    save_settings(settings, run)
    write_rows(run.predictions, prediction_rows(scores))
    write_json(run.metrics, evaluate_splits(scores))
    return run


def test_scores_survive_predictions_csv_to_the_last_bit(run):
    written, read = scores_of(1), scores_from_rows(read_rows(run.predictions), ("no", "yes"), split="test")
    assert (read.subjects, read.items, read.classes) == (written.subjects, written.items, written.classes)
    np.testing.assert_array_equal(read.labels, written.labels)
    np.testing.assert_array_equal(read.probabilities, written.probabilities)


def test_scores_of_a_finished_run_are_decided_at_the_threshold_of_its_validation(run):
    threshold = json.loads(run.metrics.read_text(encoding="utf-8"))["threshold"]
    assert read_scores(run, split="test").threshold == threshold != 0.5


def test_the_temperature_is_read_from_metrics_json_and_fitted_only_where_an_older_run_has_none(run):
    metrics = json.loads(run.metrics.read_text(encoding="utf-8"))
    fitted = Calibration.from_json(metrics["calibration"])
    assert read_calibration(run) == fitted != Calibration()
    write_json(run.metrics, {**metrics, "calibration": {"temperature": 3.5, "at_bound": False}})
    assert read_calibration(run) == Calibration(3.5)
    write_json(run.metrics, {name: value for name, value in metrics.items() if name != "calibration"})
    assert read_calibration(run) == fitted


def test_a_run_without_epochs_has_no_history(run):
    assert read_history(run) == []
    write_rows(run.history, [{"epoch": 0, "loss": 0.5}])
    assert read_history(run) == [{"epoch": "0", "loss": "0.5"}]


@pytest.mark.parametrize(("sound", "damaged"), [("test", "tset"), ("yes", "yeq"), ("0.", "0,")])
def test_a_damaged_value_is_an_error_that_names_the_file(sound, damaged, run):
    text = run.predictions.read_text(encoding="utf-8")
    run.predictions.write_text(text.replace(sound, damaged), encoding="utf-8")
    with pytest.raises(ValueError, match=r"predictions\.csv"):
        read_scores(run, split="test")


def draw_scores(count, *, signal, seed):
    """Scores of `count` subjects whose separation grows with the signal."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    positive = 1 / (1 + np.exp(-(rng.normal(size=count) + signal * (2 * labels - 1))))
    return Scores(
        subjects=tuple(f"s{i}" for i in range(count)),
        labels=labels,
        probabilities=np.stack([1 - positive, positive], axis=1),
        classes=("a", "b"),
    )


@pytest.mark.parametrize(
    ("train", "val", "state"), [(0.0, 0.0, "underfits"), (3.0, 0.0, "overfits"), (1.5, 1.5, "neither")]
)
def test_the_state_follows_from_training_and_validation(train, val, state):
    trained, validated = draw_scores(80, signal=train, seed=1), draw_scores(40, signal=val, seed=2)
    found = assess_learning(trained, validated)
    assert found.state == state
    assert found.metric == "auc"
    assert found.train == pytest.approx(roc_auc_score(trained.labels, trained.probabilities[:, 1]))
    assert found.val == pytest.approx(roc_auc_score(validated.labels, validated.probabilities[:, 1]))
    assert found.train_loss == pytest.approx(log_loss(trained.labels, trained.probabilities))
    assert found.train_interval[0] <= found.train <= found.train_interval[1]


def test_few_subjects_say_nothing():
    few = draw_scores(6, signal=3, seed=0)
    assert assess_learning(few, few).state == "unknown"


def test_advice_names_the_settings_to_change():
    under = assess_learning(
        draw_scores(80, signal=0, seed=1),
        draw_scores(40, signal=0, seed=2),
        best_epoch=30,
        epochs=30,
        overfit_losses=[0.7, 0.05],
    )
    text = " ".join(describe_learning(under.as_json(), augment="light"))
    assert all(key in text for key in ("augment=none", "trainer.epochs", "0.05", "30 of 30"))
    assert "augment=none" not in " ".join(describe_learning(under.as_json(), augment="none"))
    own = " ".join(describe_learning(under.as_json(), has_filters=False, is_coarser=False))
    assert all(key in text and key not in own for key in ("model.filters", "preprocess."))
    over = assess_learning(draw_scores(80, signal=3, seed=1), draw_scores(40, signal=0, seed=2))
    assert "model.dropout" in " ".join(describe_learning(over.as_json(), augment="none"))
    without = describe_learning(over.as_json(), has_network=False)
    assert "model.dropout" not in " ".join(without)


def test_a_best_epoch_before_the_last_is_not_the_last():
    same = draw_scores(40, signal=1, seed=0)
    assert not assess_learning(same, same, best_epoch=3, epochs=4).best_is_last
    assert assess_learning(same, same, best_epoch=4, epochs=4).best_is_last
    assert not assess_learning(same, same).best_is_last
