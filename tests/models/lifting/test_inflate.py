"""Inflation schemes and window arithmetic against plain numpy."""

from itertools import product

import numpy as np
import pytest

from voxlift.models.lifting.inflate import (
    adapt_channels,
    centre_tap,
    inflate_centre,
    inflate_mean,
    inflate_transposed,
    tile_rows,
)
from voxlift.models.lifting.rules.windows import same_padding, transposed_output, window_output

RNG = np.random.default_rng(0)


def test_the_centre_tap_is_never_applied_to_padding_under_same():
    for size, window, stride in product(range(1, 12), range(1, 8), (1, 2, 3)):
        front, _ = same_padding(size, window, stride=stride)
        count = window_output(size, window, stride=stride, padding="same")
        positions = [index * stride - front + centre_tap(window) for index in range(count)]
        assert min(positions) >= 0, (size, window, stride)
        assert max(positions) < size, (size, window, stride)


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_taps_sum_to_the_2d_kernel(depth):
    kernel = RNG.normal(size=(3, 2, 4, 5)).astype("float32")
    for inflated in (inflate_centre(kernel, depth), inflate_mean(kernel, depth)):
        assert inflated.shape == (depth, 3, 2, 4, 5)
        np.testing.assert_allclose(inflated.sum(axis=0), kernel, rtol=1e-6)
    assert np.count_nonzero(inflate_centre(kernel, depth).any(axis=(1, 2, 3, 4))) == 1
    assert np.ptp(inflate_mean(kernel, depth), axis=0).max() == 0


@pytest.mark.parametrize(("depth", "stride"), [(2, 2), (3, 2), (5, 2), (3, 1), (4, 3)])
def test_every_slice_of_a_transposed_centre_kernel_is_reached_once(depth, stride):
    inflated = inflate_transposed(np.ones((1, 1, 1, 1), "float32"), depth, "centre", stride=stride)
    reached = np.zeros(transposed_output(6, depth, stride=stride, padding="valid"))
    for index in range(6):
        reached[index * stride : index * stride + depth] += inflated[:, 0, 0, 0, 0]
    first = (depth - stride) // 2
    assert (reached[first : first + 6 * stride] == 1).all()
    mean = inflate_transposed(np.ones((1, 1, 1, 1), "float32"), depth, "mean", stride=stride)
    np.testing.assert_allclose(mean.sum(), stride, rtol=1e-6)


def test_a_tiled_dense_kernel_gives_the_2d_output_for_equal_slices():
    kernel, features = RNG.normal(size=(6, 2)), RNG.normal(size=6)
    np.testing.assert_allclose(
        np.tile(features, 4) @ tile_rows(kernel.astype("float32"), 4), features @ kernel, 1e-5
    )


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_adapted_channels_keep_the_response_to_equal_channels(channels):
    kernel = RNG.normal(size=(3, 3, 3, 5)).astype("float32")
    adapted = adapt_channels(kernel, channels, axis=2)
    assert adapted.shape == (3, 3, channels, 5)
    np.testing.assert_allclose(adapted.sum(axis=2), kernel.sum(axis=2), rtol=1e-4, atol=1e-6)


def test_half_precision_kernels_stay_half_precision():
    assert inflate_mean(np.ones((1, 1, 1, 1), "float16"), 3).dtype == np.float16
