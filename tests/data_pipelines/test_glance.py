import numpy as np
import pytest

from voxlift.data_pipelines.audit.sanity import Span, remarks, span_of
from voxlift.data_pipelines.cache.ranges import Sketch
from voxlift.data_pipelines.preprocess.settings import Preprocess

CT = Preprocess(spacing=(2.0, 2.0, 2.0), shape=(32, 40, 48), window_hu=(-1000.0, 1000.0))


def sketch(shape=(40, 50, 60), spacing=(2.0, 2.0, 2.0)):
    return Sketch(spacing, shape, "RAS", ())


def said(spans, settings=CT, sketches=None, shape=(32, 40, 48, 1)):
    return remarks(spans, sketches or [sketch()], settings, shape)


def test_a_span_is_of_all_values():
    assert span_of(np.array([[3, -2], [0, 1]], np.int16)) == Span(-2.0, 3.0)


def test_what_is_well_prepared_is_left_in_peace():
    assert said([Span(0.0, 0.9), Span(0.1, 0.6)]) == ()
    assert said([Span(0, 1)], Preprocess()) == ()
    assert said([Span(0, 3000)], Preprocess(zscore="whole")) == ()


def test_blank_volumes_are_counted():
    (sentence,) = said([Span(0.0, 0.0), Span(0.0, 0.9), Span(0.5, 0.5)])
    assert sentence.startswith("2 of 3 prepared training volumes are blank")


def test_a_window_that_is_none_of_the_values_is_named():
    (sentence,) = said([Span(0.5, 0.5005), Span(0.5, 0.5005)])
    assert "preprocess.window_hu=[-1000,1000] leaves the images a contrast of 0.0005" in sentence
    assert "preprocess=mri" in sentence


def test_values_far_from_one_are_told_with_their_window():
    (sentence,) = said([Span(-20.0, 380.0), Span(0.0, 420.0), Span(-10.0, 400.0)], Preprocess())
    assert "'preprocess.window_hu=[-10,400]'" in sentence


@pytest.mark.parametrize("spacing", [(2.0, 2.0, 2.0), None])
def test_a_small_part_of_large_images_is_told_in_millimetres(spacing):
    settings = Preprocess(spacing=spacing, shape=(32, 40, 48), window_hu=(0.0, 1.0))
    (sentence,) = said([Span(0.0, 1.0)], settings, [sketch((80, 100, 120))] * 3)
    assert "shows the middle 64 x 80 x 96 mm of images that are 160 x 200 x 240 mm" in sentence
    assert "6% of them" in sentence


@pytest.mark.parametrize("change", [{"fit": "resize"}, {"foreground_crop": True}])
def test_a_part_that_is_chosen_is_no_remark(change):
    settings = Preprocess(shape=(8, 8, 8), window_hu=(0.0, 1.0), **change)
    assert said([Span(0.0, 1.0)], settings, [sketch((80, 100, 120))], (8, 8, 8, 1)) == ()
