import numpy as np
import pytest
import tensorflow as tf
from scipy.interpolate import BSpline
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from voxlift.data_pipelines.augment.affine import rotation_matrix
from voxlift.data_pipelines.augment.build import apply_augment, draw_augment
from voxlift.data_pipelines.augment.elastic import displacement_field
from voxlift.data_pipelines.augment.settings import Augment

SHAPE, SPACING = (5, 7, 11, 2), (3.0, 1.5, 0.8)
VOXELS = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
AFFINE = Augment(
    affine_prob=1.0,
    rotation_degrees=(30.0, 20.0, 10.0),
    scale=(0.7, 1.4),
    scale_each_axis=True,
    shear=(0.1, 0.2, 0.3),
    translation_mm=(2.0, 3.0, 1.0),
)
CROP = {"crop_prob": 1.0, "crop_fraction": (0.5, 0.9)}
ELASTIC = {"elastic_prob": 1.0, "elastic_mm": 2.0, "elastic_node_mm": 6.0}


def draw(settings, seed=1, shape=SHAPE, spacing=SPACING):
    return draw_augment(settings, shape, spacing=spacing, seed=[3, seed])


def indices(shape):
    return np.stack(np.meshgrid(*map(np.arange, shape[:3]), indexing="ij")).reshape(3, -1).astype(float)


def oracle(voxels, places, fill):
    """Each channel read by scipy at places [3, N]."""
    read = [
        map_coordinates(voxels[..., c].astype(float), places, order=1, mode="grid-constant", cval=fill[c])
        for c in range(voxels.shape[3])
    ]
    return np.stack(read, -1).reshape(voxels.shape)


def affine_places(drawn, places, shape, spacing):
    """The documented order, written in homogeneous world coordinates about the middle, then inverted."""
    values = {
        name: drawn[name].numpy().astype(float)
        for name in ("rotation_degrees", "scale", "shear", "translation_mm")
    }
    depth, height, width = np.deg2rad(values["rotation_degrees"])
    turn = (
        Rotation.from_rotvec([depth, 0, 0])
        * Rotation.from_rotvec([0, height, 0])
        * Rotation.from_rotvec([0, 0, width])
    )
    shear = np.eye(3)
    shear[0, 1], shear[0, 2], shear[1, 2] = values["shear"]
    forward = np.eye(4)
    forward[:3, :3] = turn.as_matrix() @ shear @ np.diag(values["scale"])
    forward[:3, 3] = values["translation_mm"]
    to_mm = np.diag([*spacing, 1.0])
    to_mm[:3, 3] = -(np.array(shape[:3]) - 1) / 2 * spacing
    back = np.linalg.inv(to_mm) @ np.linalg.inv(forward) @ to_mm
    return back[:3, :3] @ places + back[:3, 3:]


def crop_places(drawn, places, shape):
    sides = np.array(shape[:3], float)[:, None]
    low, fraction = drawn["crop_low"].numpy()[:, None] * sides, drawn["crop_fraction"].numpy()[:, None]
    return low + (places + 0.5) * fraction - 0.5


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_affine_is_scipys_linear_read_at_the_inverse_of_the_drawn_movement(seed):
    drawn = draw(AFFINE, seed)
    places = affine_places(drawn, indices(SHAPE), SHAPE, SPACING)
    expected = oracle(VOXELS, places, VOXELS.min((0, 1, 2)))
    np.testing.assert_allclose(apply_augment(VOXELS, drawn, AFFINE), expected, atol=2e-5)


def test_crop_stretches_the_drawn_box_edge_to_edge():
    settings = Augment(**CROP)
    drawn = draw(settings)
    expected = oracle(VOXELS, crop_places(drawn, indices(SHAPE), SHAPE), VOXELS.min((0, 1, 2)))
    np.testing.assert_allclose(apply_augment(VOXELS, drawn, settings), expected, atol=2e-5)
    low, high = drawn["crop_low"].numpy(), drawn["crop_low"].numpy() + drawn["crop_fraction"].numpy()
    assert (low >= 0).all()
    assert (high <= 1 + 1e-6).all()


def test_affine_crop_and_elastic_compose_into_one_resample():
    settings = Augment(**{**AFFINE.__dict__, **CROP, **ELASTIC, "fill_minimum": False, "fill": -4.0})
    drawn = draw(settings)
    places = affine_places(drawn, crop_places(drawn, indices(SHAPE), SHAPE), SHAPE, SPACING)
    places += displacement_field(drawn, SHAPE[:3]).numpy().reshape(3, -1)
    expected = oracle(VOXELS, places, (-4.0, -4.0))
    np.testing.assert_allclose(apply_augment(VOXELS, drawn, settings), expected, atol=5e-5)


def test_displacements_are_scipys_cubic_spline_of_the_drawn_nodes():
    drawn = draw(Augment(**ELASTIC))
    field = drawn["elastic_mm"].numpy().astype(float)
    for axis, (side, step) in enumerate(zip(SHAPE[:3], SPACING, strict=True)):
        count = field.shape[axis + 1]
        spline = BSpline(np.arange(-2, count + 2), np.moveaxis(field, axis + 1, 0), 3)
        places = (np.arange(side) - (side - 1) / 2) * step / 6.0 + (count - 1) / 2
        assert places.min() >= 1
        assert places.max() <= count - 2
        field = np.moveaxis(spline(places), 0, axis + 1)
    expected = field / np.array(SPACING)[:, None, None, None]
    np.testing.assert_allclose(displacement_field(drawn, SHAPE[:3]), expected, atol=1e-6)


def test_displacements_stay_within_their_limit_and_do_not_fold_space():
    settings = Augment(elastic_prob=1.0, elastic_mm=4.8, elastic_node_mm=12.0)
    for seed in range(5):
        drawn = draw(settings, seed, (20, 20, 20, 1), (2.0, 2.0, 2.0))
        moved = displacement_field(drawn, (20, 20, 20)).numpy()
        assert 0.2 < np.abs(moved * 2.0).max() <= 4.8
        slopes = np.stack([np.stack(np.gradient(part)) for part in moved])  # [component, axis, D, H, W]
        assert np.linalg.det(np.moveaxis(slopes, (0, 1), (-2, -1)) + np.eye(3)).min() > 0


def test_a_rotation_turns_lengths_in_mm_not_in_voxels():
    # A point 6 mm along depth from the middle ends, turned by a quarter about height, 6 mm along width.
    voxels = np.zeros((9, 3, 31, 1), np.float32)
    voxels[6, 1, 15] = 1.0  # 2 voxels of 3 mm
    settings = Augment(affine_prob=1.0, rotation_degrees=(0.0, 90.0, 0.0))
    drawn = draw(settings, 1, voxels.shape, (3.0, 1.0, 1.0)) | {
        "rotation_degrees": tf.constant([0.0, 90.0, 0.0])
    }
    found = np.argwhere(apply_augment(voxels, drawn, settings).numpy()[..., 0] > 0.99)
    assert found.tolist() in ([[4, 1, 21]], [[4, 1, 9]])


def test_translation_and_scale_move_the_object_in_mm():
    voxels = np.zeros((5, 7, 11, 1), np.float32)
    voxels[2, 3, 7] = 1.0
    settings = Augment(affine_prob=1.0, translation_mm=(3.0, 0.0, 0.0), scale=(1.0, 2.0))
    drawn = draw(settings, 1, voxels.shape, (3.0, 1.0, 1.0))
    drawn |= {"translation_mm": tf.constant([3.0, 0.0, 0.0]), "scale": tf.constant([1.0, 1.0, 2.0])}
    varied = apply_augment(voxels, drawn, settings).numpy()[..., 0]
    # twice as far from the middle 5, one voxel of 3 mm further along depth, twice as wide
    np.testing.assert_allclose(varied[3, 3], [0, 0, 0, 0, 0, 0, 0, 0, 0.5, 1.0, 0.5], atol=1e-6)
    assert varied.sum() == pytest.approx(2.0)


def test_rotation_is_orthonormal_and_proper():
    matrix = rotation_matrix(tf.constant([12.0, -50.0, 77.0])).numpy()
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(matrix) == pytest.approx(1.0, abs=1e-5)


def test_one_scale_serves_all_axes_unless_each_has_its_own():
    factors = draw(Augment(affine_prob=1.0, scale=(0.5, 2.0)))["scale"].numpy()
    assert len(set(factors.tolist())) == 1
    assert len(set(draw(AFFINE)["scale"].numpy().tolist())) == 3


def test_a_slice_moves_within_its_plane():
    image = VOXELS[0]
    settings = Augment(**{**AFFINE.__dict__, **CROP, **ELASTIC})
    drawn = draw(settings, 4, image.shape)
    assert drawn["rotation_degrees"].numpy()[1:].tolist() == [0.0, 0.0]
    assert drawn["translation_mm"].numpy()[0] == drawn["shear"].numpy()[0] == drawn["shear"].numpy()[1] == 0.0
    shape = (1, *image.shape)
    places = affine_places(drawn, crop_places(drawn, indices(shape), shape), shape, SPACING)
    places += displacement_field(drawn, shape[:3]).numpy().reshape(3, -1)
    assert (places[0] == 0).all()
    expected = oracle(image[None], places, image.min((0, 1)))[0]
    np.testing.assert_allclose(apply_augment(image, drawn, settings), expected, atol=5e-5)


def test_no_movement_gives_back_the_very_voxels_even_with_awkward_spacings():
    settings = Augment(affine_prob=1.0, crop_prob=1.0, elastic_prob=1.0)
    drawn = draw(settings, 1, SHAPE, (1 / 3, 0.7, 4.9))
    np.testing.assert_array_equal(apply_augment(VOXELS, drawn, settings), VOXELS)
