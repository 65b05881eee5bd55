import numpy as np
import tensorflow as tf

from voxlift.data_pipelines.augment.voxel_operations import apply_along_axes, cubic_basis


def test_a_matrix_per_axis_is_the_einsum_over_all_axes():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 7, 11)).astype(np.float32)
    matrices = [rng.normal(size=(m, n)).astype(np.float32) for m, n in ((2, 5), (3, 7), (4, 11))]
    expected = np.einsum("ad,bh,cw,dhw->abc", *matrices, values)
    np.testing.assert_allclose(
        apply_along_axes(tf.constant(values), map(tf.constant, matrices)), expected, rtol=1e-4
    )
    channels = np.stack([values, -values], -1)
    expected = np.stack([expected, -expected], -1)
    np.testing.assert_allclose(
        apply_along_axes(tf.constant(channels), map(tf.constant, matrices)), expected, rtol=1e-4
    )


def test_none_leaves_an_axis_alone():
    values = tf.random.stateless_uniform([5, 7, 11, 1], [1, 2])
    doubled = apply_along_axes(values, [None, 2.0 * tf.eye(7), None])
    np.testing.assert_allclose(doubled, 2.0 * values.numpy(), rtol=1e-6)


def test_the_spline_weights_sum_to_one_inside():
    weights = cubic_basis(tf.linspace(1.0, 4.0, 31), 6).numpy()
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-6)
    assert weights.min() >= 0
