"""Covering the planted signal lowers the class's probability."""

import numpy as np

from voxlift.models.explain import occlusion_map
from voxlift.models.slice_model import wrap_slices


def test_occlusion_agrees_with_grad_cam_on_the_spot(detector, volumes, spot):
    found = occlusion_map(detector(3), volumes, label=1, size=(2, 4, 4), stride=2)
    assert found.shape == (2, 8, 12, 16)
    peak = np.unravel_index(found[0].argmax(), (8, 12, 16))
    assert all(part.start <= at < part.stop for part, at in zip(spot, peak, strict=True))
    assert found[0, 0, 10:, :4].max() < 0.05 * found[0].max()


def test_occlusion_works_on_slices_and_on_the_slice_model(detector, volumes, spot):
    images = volumes[:, 5]
    found = occlusion_map(detector(2), images, label=1, size=4, fill=0.0)[0]
    peak = np.unravel_index(found.argmax(), (12, 16))
    assert all(part.start <= at < part.stop for part, at in zip(spot[1:], peak, strict=True))
    stacked = occlusion_map(wrap_slices(detector(2), depth=8), volumes, label=1, size=4)
    assert stacked.shape == (2, 8, 12, 16)
    assert stacked[0, 5].max() > 0.0
