import numpy as np
import pytest

from voxlift.data_pipelines.shuffling import epoch_orders

LABELS = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 2], np.int64)


def test_every_epoch_visits_every_record_once():
    orders = epoch_orders(LABELS, epochs=4, seed=3)
    assert orders.shape == (4, 10)
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


def test_a_resumed_run_continues_the_same_orders():
    whole = epoch_orders(LABELS, epochs=6, seed=3)
    np.testing.assert_array_equal(epoch_orders(LABELS, epochs=6, seed=3, first_epoch=4), whole[4:])
    assert epoch_orders(LABELS, epochs=6, seed=3, first_epoch=6).shape == (0, 10)


def test_another_seed_gives_another_order():
    assert not np.array_equal(epoch_orders(LABELS, epochs=1, seed=0), epoch_orders(LABELS, epochs=1, seed=1))


@pytest.mark.parametrize("seed", range(5))
def test_balanced_orders_draw_each_class_equally_often(seed):
    for order in epoch_orders(LABELS, epochs=3, seed=seed, balanced=True):
        counts = np.bincount(LABELS[order])
        assert len(order) == 10
        assert counts.max() - counts.min() <= 1
