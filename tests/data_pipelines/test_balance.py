from collections import Counter

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from voxlift.data_pipelines.shuffling import balanced_order, class_weights

LABELS = [0] * 31 + [2] * 5 + [1] * 8


def test_weights_agree_with_scikit_learn():
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    assert list(class_weights(LABELS).values()) == pytest.approx(list(expected))
    assert np.mean([class_weights(LABELS)[label] for label in LABELS]) == pytest.approx(1)


def test_an_epoch_shows_every_class_equally_often_and_keeps_its_length():
    order = balanced_order(LABELS, seed=1, epoch=0)
    shown = Counter(LABELS[index] for index in order)
    assert len(order) == len(LABELS)
    assert max(shown.values()) - min(shown.values()) <= 1
    times = Counter(order.tolist())
    for label in range(3):
        repeats = [times[index] for index, own in enumerate(LABELS) if own == label]
        assert max(repeats) - min(repeats) <= 1


def test_the_order_is_decided_by_seed_and_epoch():
    order = balanced_order(LABELS, seed=1, epoch=3)
    np.testing.assert_array_equal(order, balanced_order(LABELS, seed=1, epoch=3))
    assert (order != balanced_order(LABELS, seed=1, epoch=4)).any()
    assert (order != balanced_order(LABELS, seed=2, epoch=3)).any()


def test_epochs_together_show_every_record():
    seen = {index for epoch in range(12) for index in balanced_order(LABELS, seed=0, epoch=epoch).tolist()}
    assert seen == set(range(len(LABELS)))


def test_a_class_without_records_is_refused():
    with pytest.raises(ValueError, match="class 1"):
        balanced_order([0, 2, 2], seed=0, epoch=0)
    with pytest.raises(ValueError, match="class 2"):
        class_weights([0, 1], classes=3)
