import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import beta, kstest

from voxlift.data_pipelines.augment.mixup import apply_mixup, build_mixup, draw_mixup
from voxlift.data_pipelines.augment.settings import Augment

RNG = np.random.default_rng(0)
VOXELS = RNG.normal(size=(6, 3, 4, 5, 1)).astype(np.float32)
LABELS = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]]


def test_voxels_and_labels_are_blended_with_the_same_partner_and_weight():
    drawn = draw_mixup(Augment(mixup_alpha=0.4), 6, tf.constant([1, 2]))
    weight, partner = drawn["mixup_weight"].numpy(), drawn["mixup_partner"].numpy()
    assert sorted(partner) == list(range(6))
    assert ((weight >= 0.5) & (weight <= 1.0)).all()
    voxels, labels = apply_mixup(tf.constant(VOXELS), tf.constant(LABELS), drawn)
    w = weight[:, None, None, None, None]
    np.testing.assert_allclose(voxels, w * VOXELS + (1 - w) * VOXELS[partner], atol=1e-6)
    np.testing.assert_allclose(
        labels, weight[:, None] * LABELS + (1 - weight[:, None]) * LABELS[partner], atol=1e-6
    )
    np.testing.assert_allclose(labels.numpy().sum(1), 1.0, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_weights_follow_the_larger_of_a_beta_pair(alpha):
    weights = draw_mixup(Augment(mixup_alpha=alpha), 2000, tf.constant([1, 2]))["mixup_weight"].numpy()
    larger = lambda w: beta.cdf(w, alpha, alpha) - beta.cdf(1 - w, alpha, alpha)  # noqa: E731 - named for the reader
    assert kstest(weights, larger).pvalue > 1e-3


def test_a_tiny_alpha_underflows_to_no_blending_not_to_nan():
    weights = draw_mixup(Augment(mixup_alpha=1e-3), 500, tf.constant([1, 2]))["mixup_weight"].numpy()
    assert np.isfinite(weights).all()
    assert weights.max() <= 1.0


def test_alpha_zero_changes_nothing_and_a_last_small_batch_of_unknown_size_works():
    plain = build_mixup(Augment())(tf.constant(VOXELS), tf.constant(LABELS), tf.constant([1, 2]))
    np.testing.assert_array_equal(plain[0], VOXELS)
    mix = build_mixup(Augment(mixup_alpha=0.4))
    batches = tf.data.Dataset.from_tensor_slices((VOXELS, LABELS)).batch(4)
    mixed = batches.map(lambda voxels, labels: mix(voxels, labels, tf.constant([1, 2])))
    assert mixed.element_spec[0].shape.as_list() == [None, 3, 4, 5, 1]
    assert [len(labels) for _, labels in mixed] == [4, 2]


def test_equal_seeds_give_equal_blends_and_other_seeds_others():
    settings = Augment(mixup_alpha=0.4)
    first, again, other = (
        draw_mixup(settings, 6, tf.constant([1, seed]))["mixup_weight"].numpy() for seed in (2, 2, 3)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()
