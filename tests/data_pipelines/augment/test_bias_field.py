import numpy as np
from scipy.interpolate import BSpline

from voxlift.data_pipelines.augment.bias_field import bias_field
from voxlift.data_pipelines.augment.build import apply_augment, draw_augment
from voxlift.data_pipelines.augment.settings import Augment

SIDES = (5, 7, 11)
SETTINGS = Augment(bias_prob=1.0, bias_strength=0.5)


def draw(seed=1):
    return draw_augment(SETTINGS, (*SIDES, 2), spacing=(1, 1, 1), seed=[0, seed])


def oracle_field(nodes):
    field = nodes.astype(float)
    for axis, side in enumerate(SIDES):
        places = 1 + (np.arange(side) + 0.5) / side
        field = np.moveaxis(BSpline(np.arange(-2, 6), np.moveaxis(field, axis, 0), 3)(places), 0, axis)
    return np.exp(field)


def test_the_field_is_scipys_cubic_spline_of_its_nodes_and_bounded():
    for seed in range(3):
        nodes = draw(seed)["bias_log"]
        field = bias_field(nodes, SIDES).numpy()
        np.testing.assert_allclose(field, oracle_field(nodes.numpy()), rtol=1e-5)
        assert np.exp(-0.5) <= field.min() < field.max() <= np.exp(0.5)


def test_it_multiplies_the_height_above_the_minimum_so_that_the_background_stays():
    rng = np.random.default_rng(0)
    windowed = rng.uniform(size=(*SIDES, 2)).astype(np.float32)
    windowed[0, 0, 0] = 0.0
    drawn = draw()
    field = oracle_field(drawn["bias_log"].numpy())[..., None]
    np.testing.assert_allclose(
        apply_augment(windowed, drawn, SETTINGS), windowed * field, rtol=1e-5, atol=1e-6
    )
    scored = 3.0 * windowed - 1.0
    expected = (scored - scored.min((0, 1, 2))) * field + scored.min((0, 1, 2))
    np.testing.assert_allclose(apply_augment(scored, drawn, SETTINGS), expected, rtol=1e-5, atol=1e-5)
