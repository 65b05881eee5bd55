"""A map of a class, layer or size that does not exist is refused."""

import keras
import numpy as np
import pytest
from keras import layers
from scipy.special import expit, softmax

from voxlift.models.explain import grad_cam, occlusion_map
from voxlift.models.explain.target import explained_log_probability, explained_score


@pytest.mark.parametrize(
    ("make_map", "settings", "named"),
    [
        (grad_cam, {"label": 3}, "0 to 2.*3"),
        (grad_cam, {"label": 1, "layer": "second"}, "'second'.*first, pool"),
        (occlusion_map, {"label": -1}, "0 to 2.*-1"),
        (occlusion_map, {"label": 1, "size": 0}, "size.*0"),
        (occlusion_map, {"label": 1, "stride": (1, 2)}, r"3 .*stride.*\(1, 2\)"),
    ],
)
def test_wrong_targets_and_sizes_are_refused_by_name(make_map, settings, named, detector, volumes):
    with pytest.raises(ValueError, match=named):
        make_map(detector(3), volumes, **settings)


def test_a_network_without_spatial_layers_is_refused():
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(2)], name="flat")
    with pytest.raises(ValueError, match=r"flat .*spatial"):
        grad_cam(model, np.zeros((1, 4, 4, 1), "float32"), label=0)


def test_scores_of_findings_cuts_and_numbers_agree_with_their_definitions():
    scores = np.array([[0.2, -1.0, 3.0], [1.5, 0.3, -0.2]], "float32")
    p = softmax(scores, axis=1)
    found = {
        kind: explained_log_probability(scores, 1, kind) for kind in ("class", "finding", "cut", "number")
    }
    np.testing.assert_allclose(found["class"], np.log(p[:, 1]), rtol=1e-5)
    np.testing.assert_allclose(found["finding"], np.log(expit(scores[:, 1])), rtol=1e-5)
    np.testing.assert_allclose(found["cut"], np.log(p[:, 2]), rtol=1e-4)
    np.testing.assert_allclose(found["number"], scores[:, 1])
    np.testing.assert_allclose(
        explained_score(scores, 0, "cut"), np.log(p[:, 1:].sum(axis=1) / p[:, 0]), rtol=1e-5
    )
    np.testing.assert_allclose(explained_score(scores[:, :1], 1, "cut"), scores[:, 0])


@pytest.mark.parametrize("kind", ["finding", "number", "cut"])
def test_maps_of_every_kind_find_the_spot(kind, detector, volumes, spot):
    label = 0 if kind == "cut" else 1  # class 1 is above cut 0
    for make_map, settings in ((grad_cam, {}), (occlusion_map, {"size": (2, 4, 4), "stride": 2})):
        found = make_map(detector(3), volumes, label=label, kind=kind, **settings)[0]
        peak = np.unravel_index(found.argmax(), found.shape)
        assert all(part.start <= at < part.stop for part, at in zip(spot, peak, strict=True))


def test_a_cut_above_the_highest_grade_and_an_unknown_kind_are_refused(detector, volumes):
    with pytest.raises(ValueError, match=r"0 to 1.*2"):
        grad_cam(detector(3), volumes, label=2, kind="cut")
    with pytest.raises(ValueError, match="grade"):
        grad_cam(detector(3), volumes, label=0, kind="grade")
