"""No view of test-time augmentation can belong to another class."""

import numpy as np
import pytest

from voxlift.app.config import SettingsError
from voxlift.app.inference.test_time_augmentation import build_views

VOXELS = np.random.default_rng(0).random((2, 3, 4, 5, 1)).astype("float32")


def handedness(view):
    """-1 for a mirror image, +1 for a rotation, 0 for a shift."""
    moved = view(VOXELS)
    flips = [
        axes
        for axes in np.ndindex(2, 2, 2)
        if np.array_equal(np.flip(VOXELS, [a + 1 for a in range(3) if axes[a]]), moved)
    ]
    return (-1) ** sum(flips[0]) if flips else 0


def test_none_is_the_volume_itself():
    (view,) = build_views("none", {})
    assert np.array_equal(view(VOXELS), VOXELS)


def test_half_turns_never_mirror():
    views = build_views("half_turns", {})
    assert [handedness(view) for view in views] == [1, 1, 1, 1]
    assert len({view(VOXELS).tobytes() for view in views}) == 4


def test_flips_are_those_of_training_and_their_combinations():
    views = build_views("flips", {"flip_prob": [0.5, 0.0, 0.5]})
    assert len(views) == 4
    expected = [VOXELS, VOXELS[:, ::-1], VOXELS[:, :, :, ::-1], VOXELS[:, ::-1, :, ::-1]]
    assert {view(VOXELS).tobytes() for view in views} == {
        np.ascontiguousarray(one).tobytes() for one in expected
    }


@pytest.mark.parametrize("augment", [{}, {"flip_prob": [0.0, 0.0, 0.5], "keep_handedness": True}])
def test_flips_are_refused_where_training_kept_the_handedness(augment):
    with pytest.raises(SettingsError, match="tta=flips"):
        build_views("flips", augment)


def test_shifts_move_by_a_voxel_and_repeat_the_edge():
    views = build_views("shifts", {})
    assert len(views) == 7
    forward = views[2](VOXELS)  # along depth, towards higher indices
    assert np.array_equal(forward[:, 1:], VOXELS[:, :-1])
    assert np.array_equal(forward[:, 0], VOXELS[:, 0])
