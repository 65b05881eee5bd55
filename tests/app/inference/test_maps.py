"""Maps show a planted signal at its place in the world, whatever grid the scan was stored on."""

import keras
import nibabel as nib
import numpy as np
import pytest
from keras import layers

from voxlift.app.inference.maps import (
    Explanation,
    average_explanations,
    explain_volume,
    occlusion_box,
    rank_agreement,
)
from voxlift.data_pipelines.geometry import to_tensor_axes
from voxlift.data_pipelines.preprocess.prepare import prepare_volume
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.readers import load_volume
from voxlift.data_pipelines.writers import save_on_source_grid
from voxlift.models.lifting import plan_lift
from voxlift.models.slice_model import wrap_slices

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPE = (16, 24, 20)  # prepared [D, H, W]
SPACING = (3.0, 2.0, 2.5)
CENTRE_MM = np.array([6.0, -11.0, 9.0])  # where the bright block lies, RAS
SIDE_MM = 7.0


def oblique_affine(shape):
    """Left, posterior, superior axes in another order, 12 degrees oblique, unequal spacing, centred."""
    angle = np.radians(12)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
    axes = np.array([[0, -1.0, 0], [0, 0, -1.0], [1.0, 0, 0]])  # i -> S, j -> L, k -> P
    affine = np.eye(4)
    affine[:3, :3] = turn @ axes @ np.diag([2.6, 1.3, 1.8])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2 + [3, -4, 2]
    return affine


@pytest.fixture
def scan(tmp_path):
    shape = (17, 36, 29)
    affine = oblique_affine(shape)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    voxels = np.random.default_rng(0).normal(0, 2, shape)
    voxels[(np.abs(world - CENTRE_MM) <= SIDE_MM / 2 + 1e-6).all(-1)] += 100
    nib.save(nib.Nifti1Image(voxels.astype(np.float32), affine), tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz"


def detector_2d(channels):
    """Class 1 is evidence of brightness."""
    model = keras.Sequential(
        [
            keras.Input((*SHAPE[1:], channels)),
            layers.Conv2D(2, 3, padding="same", activation="relu", use_bias=False, name="first"),
            layers.MaxPooling2D(2, name="pool"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, use_bias=False),
        ]
    )
    kernel = np.full(model.weights[0].shape, 0.05, np.float32)
    model.set_weights([kernel, np.array([[-1.0, 1.0]] * 2, np.float32)])
    return model


MODELS = {
    "slice": lambda: wrap_slices(detector_2d(1), depth=SHAPE[0]),
    "slab": lambda: wrap_slices(detector_2d(3), input_shape=(*SHAPE, 1), slab=3),
    "attention": lambda: wrap_slices(detector_2d(1), depth=SHAPE[0], aggregate="attention"),
    "volume": lambda: plan_lift(detector_2d(1), depth=SHAPE[0]).build(),
}


@pytest.mark.parametrize("method", ["gradcam", "occlusion"])
@pytest.mark.parametrize("kind", MODELS)
def test_the_map_of_an_oblique_scan_peaks_on_the_planted_block_in_world_coordinates(
    kind, method, scan, tmp_path
):
    settings = Preprocess(spacing=SPACING, shape=SHAPE, window_hu=(-10, 100))
    prepared = prepare_volume(scan, settings)
    network = MODELS[kind]()
    found = explain_volume(network, to_tensor_axes(prepared.voxels), label=1, method=method)
    assert found.heat.shape == SHAPE
    over = load_volume(save_on_source_grid(found.heat, prepared.affine, scan, tmp_path / "map.nii.gz"))
    source = load_volume(scan)
    assert over.voxels.shape == source.voxels.shape
    np.testing.assert_allclose(over.affine, source.affine, atol=1e-5)
    # The centre of the hottest voxels: a box of occlusion, or a cell of the last convolution, is one plateau.
    hottest = np.argwhere(over.voxels >= 0.9 * over.voxels.max()).mean(axis=0)
    place = source.affine[:3, :3] @ hottest + source.affine[:3, 3]
    reach = np.array([5.0, 5.0, 5.0])
    assert (np.abs(place - CENTRE_MM) < reach).all(), (place, CENTRE_MM)


def test_both_returns_the_map_of_grad_cam_and_a_high_agreement_on_the_planted_block(scan):
    settings = Preprocess(spacing=SPACING, shape=SHAPE, window_hu=(-10, 100))
    voxels = to_tensor_axes(prepare_volume(scan, settings).voxels)
    found = explain_volume(MODELS["volume"](), voxels, label=1, method="both")
    assert found.method == "gradcam"
    assert found.agreement is not None
    assert found.agreement > 0.5


def test_agreement_is_spearmans_on_boxes_and_none_for_a_constant_map():
    rng = np.random.default_rng(1)
    heat = rng.random((4, 6, 5)).astype("float32")
    box = (2, 3, 2)  # the last box of the width is one voxel wide
    assert rank_agreement(heat, heat, box=box) == pytest.approx(1.0)
    assert rank_agreement(heat, 1 - heat, box=box) == pytest.approx(-1.0)
    assert rank_agreement(heat, np.zeros_like(heat), box=box) is None
    other = rng.random((4, 6, 5)).astype("float32")
    corners = [(d, h, w) for d in (0, 2) for h in (0, 3) for w in (0, 2, 4)]
    means, others = (
        [values[d : d + 2, h : h + 3, w : w + 2].mean() for d, h, w in corners] for values in (heat, other)
    )
    ranks = [np.argsort(np.argsort(values)) for values in (means, np.round(others, 6))]
    assert rank_agreement(heat, other, box=box) == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_the_peak_of_a_map_of_zeros_is_its_centre():
    assert Explanation(np.zeros((5, 7, 11), "float32"), "gradcam").peak == (2, 3, 5)


def test_members_have_equal_weight_whatever_the_scale_of_their_maps():
    first, second = np.zeros((2, 3, 4), "float32"), np.zeros((2, 3, 4), "float32")
    first[0, 0, 0], second[1, 2, 3] = 1000, 0.001
    mean = average_explanations([Explanation(first, "gradcam", 0.5), Explanation(second, "gradcam")])
    assert mean.heat[0, 0, 0] == pytest.approx(0.5)
    assert mean.heat[1, 2, 3] == pytest.approx(0.5)
    assert mean.agreement == pytest.approx(0.5)


def test_a_box_is_a_sixth_of_each_side_rounded_up():
    assert occlusion_box((5, 7, 96, 1)) == (1, 2, 16)
