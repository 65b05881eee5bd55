"""Prepared volumes that no network could learn from are reported, with the setting to change."""

import numpy as np
import pytest

from voxlift.data_pipelines.audit.sanity import ValueRange, check_prepared, value_range
from voxlift.data_pipelines.cache.metadata import VolumeSummary
from voxlift.data_pipelines.preprocess.settings import Preprocess

CT = Preprocess(spacing=(2.0, 2.0, 2.0), shape=(32, 40, 48), window_hu=(-1000.0, 1000.0))


def summary(shape=(40, 50, 60), spacing=(2.0, 2.0, 2.0)):
    return VolumeSummary(spacing, shape, "RAS", ())


def check(ranges, settings=CT, summaries=None, shape=(32, 40, 48, 1)):
    return check_prepared(ranges, summaries or [summary()], settings, shape)


def test_a_range_is_of_all_values():
    assert value_range(np.array([[3, -2], [0, 1]], np.int16)) == ValueRange(-2.0, 3.0)


def test_well_prepared_volumes_have_no_problem():
    assert check([ValueRange(0.0, 0.9), ValueRange(0.1, 0.6)]) == ()
    assert check([ValueRange(0, 1)], Preprocess()) == ()
    assert check([ValueRange(0, 3000)], Preprocess(zscore="whole")) == ()


def test_blank_volumes_are_counted():
    (sentence,) = check([ValueRange(0.0, 0.0), ValueRange(0.0, 0.9), ValueRange(0.5, 0.5)])
    assert "2 of 3" in sentence
    assert "preprocess.shape" in sentence


def test_a_window_that_does_not_fit_the_values_is_named():
    (sentence,) = check([ValueRange(0.5, 0.5005), ValueRange(0.5, 0.5005)])
    for part in ("preprocess.window_hu=[-1000,1000]", "0.0005", "preprocess=mri"):
        assert part in sentence


def test_values_far_from_one_are_reported_with_their_window():
    (sentence,) = check(
        [ValueRange(-20.0, 380.0), ValueRange(0.0, 420.0), ValueRange(-10.0, 400.0)], Preprocess()
    )
    assert "'preprocess.window_hu=[-10,400]'" in sentence


@pytest.mark.parametrize("spacing", [(2.0, 2.0, 2.0), None])
def test_a_small_part_of_large_images_is_reported_in_millimetres(spacing):
    settings = Preprocess(spacing=spacing, shape=(32, 40, 48), window_hu=(0.0, 1.0))
    (sentence,) = check([ValueRange(0.0, 1.0)], settings, [summary((80, 100, 120))] * 3)
    for part in ("preprocess.shape=[32,40,48]", "64 x 80 x 96 mm", "160 x 200 x 240 mm", "6%"):
        assert part in sentence


@pytest.mark.parametrize("change", [{"fit": "resize"}, {"foreground_crop": True}])
def test_a_part_that_is_chosen_is_no_problem(change):
    settings = Preprocess(shape=(8, 8, 8), window_hu=(0.0, 1.0), **change)
    assert check([ValueRange(0.0, 1.0)], settings, [summary((80, 100, 120))], (8, 8, 8, 1)) == ()
