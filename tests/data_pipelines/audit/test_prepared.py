"""Prepared volumes that no network could learn from are reported, with the setting to change."""

from pathlib import Path

import numpy as np
import pytest

from voxlift.data_pipelines.audit.prepared import (
    ValueRange,
    check_prepared,
    find_out_of_range,
    find_training_range,
    value_range,
)
from voxlift.data_pipelines.cache.format import VolumeSummary, summarise_volume
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.volume import Stored

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


RNG = np.random.default_rng(0)


def evenly(shape):
    """Values spread evenly over 0..1, so that every shape has the same statistics."""
    return np.linspace(0, 1, np.prod(shape)).reshape(shape)


def summarize(*, spacing=(3.0, 2.0, 1.0), shape=(5, 7, 11), scale=1.0, flip=False, channels=1):
    """Of an image stored as k, j, i; spacing and shape are (depth, height, width)."""
    affine = np.diag([*spacing[::-1], 1.0])
    affine[0, 0] *= -1 if flip else 1
    stored = Stored(np.zeros(shape[::-1], np.int16), affine, Path("a.nii"), "nifti1")
    return summarise_volume([stored], scale * evenly((*shape, channels)))


SEEN = find_training_range([summarize(), summarize(spacing=(4.0, 2.0, 1.0), shape=(6, 7, 12))])


def test_a_summary_is_in_ras_and_ordered_depth_height_width():
    found = summarize(flip=True)
    assert found.spacing == pytest.approx((3.0, 2.0, 1.0))
    assert found.shape == (5, 7, 11)
    assert found.axcodes == "LAS"


def test_its_statistics_are_those_of_the_prepared_voxels():
    prepared = RNG.random((5, 7, 11, 2))
    stored = Stored(np.zeros((11, 7, 5), np.int16), np.eye(4), Path("a.nii"), "nifti1")
    found = summarise_volume([stored], prepared).channels[1]
    assert found["mean"] == pytest.approx(prepared[..., 1].mean())
    assert found["sd"] == pytest.approx(prepared[..., 1].std())
    assert found["p99"] == pytest.approx(np.percentile(prepared[..., 1], 99))


def test_a_volume_within_the_training_ranges_is_not_reported():
    assert find_out_of_range(summarize(spacing=(3.5, 2.0, 1.0)), SEEN) == ()
    assert find_out_of_range(summarize(spacing=(4.3, 2.1, 0.95)), SEEN) == ()


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"spacing": (5.0, 2.0, 1.0)}, ("depth", "5 mm", "3 to 4")),
        ({"shape": (5, 7, 30)}, ("width", "30 voxels", "11 to 12")),
        ({"flip": True}, ("LAS", "RAS")),
        ({"scale": 3.0}, ("mean",)),
    ],
)
def test_each_kind_of_difference_is_reported_alone(changes, facts):
    found = find_out_of_range(summarize(**changes), SEEN)
    assert any(all(fact in phrase for fact in facts) for phrase in found), found
    assert all("intensity" in phrase for phrase in found) or len(found) == 1


def test_channels_are_named_where_there_are_several():
    seen = find_training_range([summarize(channels=2)])
    assert all(
        "of channel 0" in text or "of channel 1" in text
        for text in find_out_of_range(summarize(channels=2, scale=9), seen)
    )
