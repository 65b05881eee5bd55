import numpy as np
import pytest
from sklearn import metrics as oracle

from voxlift.app.evaluation.curves import choose_threshold
from voxlift.app.evaluation.scores import Scores, ScoresError


def binary(labels, chance):
    chance = np.asarray(chance, dtype=float)
    return Scores(
        [f"s{i}" for i in range(len(labels))], labels, np.stack([1 - chance, chance], 1), ("no", "yes")
    )


@pytest.fixture(name="scores")
def overlapping_scores():
    rng = np.random.default_rng(2)
    labels = (rng.random(80) < 0.3).astype(int)
    return binary(labels, np.clip(0.3 + 0.15 * labels + 0.12 * rng.normal(size=80), 0, 1))


RULES = {
    "youden": oracle.balanced_accuracy_score,
    "accuracy": oracle.accuracy_score,
    "f1": lambda y, d: oracle.f1_score(y, d, zero_division=0),
    "mcc": oracle.matthews_corrcoef,
}


@pytest.mark.parametrize("rule", RULES)
def test_no_other_threshold_is_better_on_validation(scores, rule):
    chosen = choose_threshold(scores, rule=rule)
    p = scores.probabilities[:, 1]
    value = {t: RULES[rule](scores.labels, (p >= t).astype(int)) for t in [chosen, *p, 1.1]}
    assert value[chosen] == pytest.approx(max(value.values()))


def test_gap_between_classes_is_cut_in_its_middle():
    assert choose_threshold(binary([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])) == pytest.approx(0.5)
    assert choose_threshold(binary([0, 0, 1, 1], [0.01, 0.02, 0.06, 0.07])) == pytest.approx(0.04)


@pytest.mark.parametrize(("rule", "held"), [("sensitivity", 1), ("specificity", 0)])
def test_held_rate_is_reached_at_the_best_other_rate(scores, rule, held):
    chosen = choose_threshold(scores, rule=rule, at_least=0.85)
    p = scores.probabilities[:, 1]

    def rates(threshold):
        decided = (p >= threshold).astype(int)
        both = [oracle.recall_score(scores.labels, decided, pos_label=k) for k in (held, 1 - held)]
        return tuple(both)

    reached, other = rates(chosen)
    assert reached >= 0.85
    assert other == pytest.approx(max(o for r, o in map(rates, [*p, 0.0, 1.1]) if r >= 0.85))


def test_errors_name_the_rule_the_classes_and_the_absent_class(scores):
    with pytest.raises(ScoresError, match="unknown threshold rule 'best': expected one of youden"):
        choose_threshold(scores, rule="best")
    with pytest.raises(ScoresError, match="no validation volume of class yes"):
        choose_threshold(binary([0, 0], [0.1, 0.2]))
    with pytest.raises(ScoresError, match="got 3"):
        choose_threshold(Scores("a", [0], [[0.2, 0.3, 0.5]], ("x", "y", "z")))
