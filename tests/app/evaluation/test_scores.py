import dataclasses

import numpy as np
import pytest

from voxlift.app.evaluation.scores import Scores, ScoresError, average_by_subject, with_threshold

GOOD = [[0.2, 0.8], [0.6, 0.4]]


def test_scores_never_change():
    scores = Scores("ab", [1, 0], GOOD, ("no", "yes"))
    with pytest.raises(ValueError, match="read-only"):
        scores.probabilities[0, 0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        scores.threshold = 0.1


def test_callers_array_stays_writable():
    mine = np.array(GOOD)
    Scores("ab", [1, 0], mine, ("no", "yes"))
    mine[0, 0] = 0.3


def test_volumes_of_a_subject_are_distinguished_by_order_or_by_item():
    assert Scores("aba", [1, 0, 1], [*GOOD, GOOD[0]], ("n", "y")).keys == (("a", "0"), ("b", "0"), ("a", "1"))
    assert Scores("aa", [1, 1], GOOD, ("n", "y"), items=("p", "q")).keys == (("a", "p"), ("a", "q"))


@pytest.mark.parametrize(
    ("labels", "probabilities", "classes", "named"),
    [
        ([1], GOOD, "ny", "2 x 2"),
        ([1, 2], GOOD, "ny", "subjects b"),
        ([1, 0], [[0.2, 0.8], [np.nan, 0.4]], "ny", "subjects b"),
        ([1, 0], [[0.2, 0.9], [0.6, 0.4]], "ny", "subjects a"),
        ([0, 0], [[1.0], [1.0]], "n", "1 classes"),
    ],
)
def test_unusable_scores_are_refused_with_the_subject_named(labels, probabilities, classes, named):
    with pytest.raises(ScoresError, match=named):
        Scores("ab", labels, probabilities, tuple(classes))


def test_threshold_for_three_classes_is_refused():
    scores = Scores("a", [0], [[0.2, 0.3, 0.5]], ("x", "y", "z"))
    with pytest.raises(ScoresError, match="3"):
        with_threshold(scores, 0.3)


def test_subject_with_two_labels_cannot_be_averaged():
    with pytest.raises(ScoresError, match="for a:"):
        average_by_subject(Scores("aa", [0, 1], GOOD, ("n", "y")))
