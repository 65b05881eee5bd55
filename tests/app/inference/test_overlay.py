"""The picture of an explained volume, and the planes that pictures show."""

import numpy as np
from matplotlib.image import imread

from voxlift.app.inference.overlay import draw_planes, save_planes, three_planes

SHAPE = (5, 7, 11)  # [S, A, R]


def test_planes_pass_through_the_voxel_with_head_and_front_on_top():
    volume = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    axial, coronal, sagittal = three_planes(volume, (1, 2, 3))
    assert [plane.shape for plane in (axial, coronal, sagittal)] == [(7, 11), (5, 11), (5, 7)]
    assert axial[-1 - 2, 3] == coronal[-1 - 1, 3] == sagittal[-1 - 1, 2] == volume[1, 2, 3]
    assert axial[0, 0] == volume[1, 6, 0]  # the front row is on top
    assert coronal[0, 0] == volume[4, 2, 0]  # the head is on top


def test_the_picture_is_hot_where_the_map_is_and_grey_elsewhere(tmp_path):
    volume = np.random.default_rng(0).random(SHAPE).astype("float32")
    heat = np.zeros(SHAPE, "float32")
    heat[3, 5, 2] = 1
    where = {"at": (3, 5, 2), "spacing": (3.0, 1.0, 0.5), "title": "a scan"}

    def share_coloured(heat):
        pixels = imread(save_planes(draw_planes(volume, heat, **where), tmp_path / "a.png"))[..., :3]
        left = pixels[:, : int(pixels.shape[1] * 0.9)]  # without the colour bar
        return ((left.max(-1) - left.min(-1)) > 0.25).mean()

    assert 0 < share_coloured(heat) < 0.2
    assert share_coloured(0 * heat) < share_coloured(heat)
    assert share_coloured(None) == share_coloured(0 * heat)
