"""Every epoch has an order of its own, fixed by the seed; balancing draws or weighs classes equally."""

from collections import Counter

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from voxlift.data_pipelines.pipeline import balanced_order, class_weights, epoch_orders

LABELS = [0] * 31 + [2] * 5 + [1] * 8
FEW_LABELS = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 2], np.int64)


def test_every_epoch_visits_every_record_once():
    orders = epoch_orders(FEW_LABELS, epochs=4, seed=3)
    assert orders.shape == (4, 10)
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize("balanced", [False, True])
def test_a_resumed_run_continues_the_same_orders_and_the_seed_decides_them(balanced):
    every = epoch_orders(FEW_LABELS, epochs=6, seed=3, balanced=balanced)
    rest = epoch_orders(FEW_LABELS, epochs=6, seed=3, first_epoch=4, balanced=balanced)
    np.testing.assert_array_equal(rest, every[4:])
    assert epoch_orders(FEW_LABELS, epochs=6, seed=3, first_epoch=6, balanced=balanced).shape == (0, 10)
    assert not np.array_equal(every, epoch_orders(FEW_LABELS, epochs=6, seed=4, balanced=balanced))


def test_balanced_epochs_draw_every_class_equally_often_and_keep_their_length():
    for labels in (LABELS, FEW_LABELS.tolist()):
        for order in epoch_orders(np.array(labels), epochs=5, seed=1, balanced=True):
            drawn = np.bincount(np.array(labels)[order])
            assert len(order) == len(labels)
            assert drawn.max() - drawn.min() <= 1
            times = Counter(order.tolist())
            for label in range(3):
                repeats = [times[index] for index, own in enumerate(labels) if own == label]
                assert max(repeats) - min(repeats) <= 1


def test_balanced_epochs_together_draw_every_record():
    seen = {index for epoch in range(12) for index in balanced_order(LABELS, seed=0, epoch=epoch).tolist()}
    assert seen == set(range(len(LABELS)))


def test_weights_agree_with_scikit_learn():
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    assert list(class_weights(LABELS).values()) == pytest.approx(list(expected))
    assert np.mean([class_weights(LABELS)[label] for label in LABELS]) == pytest.approx(1)


def test_a_class_without_records_is_refused():
    with pytest.raises(ValueError, match="class 1"):
        balanced_order([0, 2, 2], seed=0, epoch=0)
    with pytest.raises(ValueError, match="class 2"):
        class_weights([0, 1], classes=3)
