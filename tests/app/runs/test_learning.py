"""Whether a model underfits or overfits, by its scores on training and validation subjects."""

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from voxlift.app.evaluation.scores import Scores
from voxlift.app.runs.results import assess_learning, describe_learning


def scores_of(count, *, signal, seed):
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
    trained, validated = scores_of(80, signal=train, seed=1), scores_of(40, signal=val, seed=2)
    found = assess_learning(trained, validated)
    assert found.state == state
    assert found.metric == "auc"
    assert found.train == pytest.approx(roc_auc_score(trained.labels, trained.probabilities[:, 1]))
    assert found.val == pytest.approx(roc_auc_score(validated.labels, validated.probabilities[:, 1]))
    assert found.train_loss == pytest.approx(log_loss(trained.labels, trained.probabilities))
    assert found.train_interval[0] <= found.train <= found.train_interval[1]


def test_few_subjects_say_nothing():
    few = scores_of(6, signal=3, seed=0)
    assert assess_learning(few, few).state == "unknown"


def test_advice_names_the_settings_to_change():
    under = assess_learning(
        scores_of(80, signal=0, seed=1),
        scores_of(40, signal=0, seed=2),
        best_epoch=30,
        epochs=30,
        overfit_losses=[0.7, 0.05],
    )
    text = " ".join(describe_learning(under.as_json(), augment="light"))
    assert all(key in text for key in ("augment=none", "trainer.epochs", "0.05", "30 of 30"))
    assert "augment=none" not in " ".join(describe_learning(under.as_json(), augment="none"))
    over = assess_learning(scores_of(80, signal=3, seed=1), scores_of(40, signal=0, seed=2))
    assert "model.dropout" in " ".join(describe_learning(over.as_json(), augment="none"))
    without = describe_learning(over.as_json(), has_network=False)
    assert "model.dropout" not in " ".join(without)


def test_a_best_epoch_before_the_last_is_not_the_last():
    same = scores_of(40, signal=1, seed=0)
    assert not assess_learning(same, same, best_epoch=3, epochs=4).best_is_last
    assert assess_learning(same, same, best_epoch=4, epochs=4).best_is_last
    assert not assess_learning(same, same).best_is_last
