"""Preparing a record: the same array whatever the stored axes, the right world, all settings applied."""

from itertools import product

import nibabel as nib
import numpy as np
import pytest

from voxlift.data_pipelines.geometry import to_tensor_axes
from voxlift.data_pipelines.preprocess.prepare import Preprocess, prepare_tensor, prepare_volume
from voxlift.data_pipelines.preprocess.settings import PRESETS, preset
from voxlift.data_pipelines.volume import VolumeError

SHAPE = (9, 11, 13)
SPACING = (1.5, 2.0, 2.5)


def blob(shape=SHAPE, seed=0):
    """A body of 100 to 200 in an air of -1000, off centre."""
    values = np.full(shape, -1000, np.int16)
    values[2:6, 3:9, 4:11] = np.random.default_rng(seed).integers(100, 200, (4, 6, 7))
    return values


def write(path, voxels, affine=None, codes="RAS", tilt=0.0):
    if affine is None:
        rotation = nib.eulerangles.euler2mat(tilt, -tilt, tilt / 2)
        affine = nib.affines.from_matvec(rotation @ np.diag(SPACING), [-9, 8, 7])
    image = nib.Nifti1Image(voxels, affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes))
    nib.save(image.as_reoriented(turn), path)
    return path


EVERY_STEP = Preprocess(
    spacing=(2.0, 2.2, 1.9),
    shape=(12, 10, 8),
    foreground_crop=True,
    clip_percentiles=(1, 99),
    zscore="foreground",
)


@pytest.mark.parametrize("settings", [Preprocess(), EVERY_STEP, Preprocess(shape=(6, 7, 8), fit="resize")])
@pytest.mark.parametrize("tilt", [0.0, 0.2])
def test_one_array_and_one_affine_whatever_the_stored_axes(tmp_path, settings, tilt):
    reference = prepare_volume(write(tmp_path / "RAS.nii.gz", blob(), tilt=tilt), settings)
    for codes in ("LPI", "SAR", "PIL", "ILA", "ASR"):
        volume = prepare_volume(write(tmp_path / f"{codes}.nii.gz", blob(), codes=codes, tilt=tilt), settings)
        np.testing.assert_allclose(volume.voxels, reference.voxels, atol=2e-4)  # of a thousand HU
        np.testing.assert_allclose(volume.affine, reference.affine, atol=1e-4)


GEOMETRIES = [
    Preprocess(spacing=(2.0, 2.2, 1.3)),
    Preprocess(spacing=(2.0, 2.2, 1.3), shape=(9, 20, 7)),
    Preprocess(shape=(9, 20, 7), fit="resize"),
    Preprocess(foreground_crop=True, shape=(5, 5, 5), foreground_threshold=1.0),
    Preprocess(axcodes=None, spacing=(1.0, 1.0, 1.0)),
    Preprocess(axcodes="SPL"),
]


def world_value(shape, to_world):
    """Return for each voxel 2x + 3y - z of its world position in mm: a misplaced voxel has another value."""
    index = np.stack([*np.meshgrid(*map(np.arange, shape), indexing="ij"), np.ones(shape)], -1)
    return (index @ to_world.T)[..., :3] @ [2.0, 3.0, -1.0]


@pytest.mark.parametrize("settings", GEOMETRIES)
def test_each_voxel_has_the_value_of_its_world_position(tmp_path, settings):
    for tilt, shear, codes in product((0.0, 0.3), (0.0, 0.3), ("RAS", "LPI", "ASL")):
        rotation = nib.eulerangles.euler2mat(tilt, -tilt, tilt / 2)
        affine = nib.affines.from_matvec(rotation @ np.diag(SPACING), [40, 50, -60])
        affine[:3, 2] += shear * affine[:3, 1]
        turn = nib.orientations.ornt_transform(
            nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes)
        )
        affine = affine @ nib.orientations.inv_ornt_aff(turn, SHAPE)
        image = nib.Nifti1Image(world_value(SHAPE, affine).astype(np.float32), affine)
        image.set_qform(None, 0)
        nib.save(image, tmp_path / "a.nii")
        volume = prepare_volume(tmp_path / "a.nii", settings)
        shape = volume.voxels.shape[:3]
        index = np.stack([*np.meshgrid(*map(np.arange, shape), indexing="ij")], -1)
        stored = nib.affines.apply_affine(np.linalg.inv(affine) @ volume.affine, index)
        # Between the outer voxel centres: at the border interpolation has no outer neighbour.
        inner = ((stored >= 0) & (stored <= np.array(SHAPE) - 1)).all(-1)
        assert inner.sum() > 20
        expected = world_value(shape, volume.affine)
        case = f"tilt {tilt}, shear {shear}, {codes}"
        np.testing.assert_allclose(volume.voxels[..., 0][inner], expected[inner], atol=2e-3, err_msg=case)


def test_a_tensor_has_the_requested_shape_and_is_the_transposed_volume(tmp_path):
    path = write(tmp_path / "a.nii.gz", blob())
    settings = preset("ct", spacing=[3, 2, 2], shape=[6, 12, 8])
    tensor = prepare_tensor(path, settings)
    assert tensor.shape == (6, 12, 8, 1)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    np.testing.assert_array_equal(tensor, to_tensor_axes(prepare_volume(path, settings).voxels))
    with pytest.raises(ValueError, match=r"preprocess\.shape"):
        prepare_tensor(path, preset("ct"))


def test_padding_is_air_the_minimum_zero_or_the_given_value(tmp_path):
    path = write(tmp_path / "a.nii.gz", blob())
    big = (15, 13, 11)
    corner = (0, 0, 0, 0)
    assert prepare_tensor(path, preset("ct", shape=big))[corner] == 0
    assert prepare_tensor(path, preset("none", shape=big))[corner] == -1000
    assert prepare_tensor(path, preset("mask", shape=big))[corner] == 0
    assert prepare_tensor(path, Preprocess(shape=big, pad=-5))[corner] == -5
    scored = prepare_tensor(path, preset("mri", shape=big))
    assert scored[corner] == scored.min()


def test_the_window_maps_its_bounds_to_0_and_1(tmp_path):
    path = write(tmp_path / "a.nii.gz", blob())
    values = prepare_volume(path, Preprocess(window_hu=(120, 180))).voxels[..., 0]
    np.testing.assert_allclose(values, np.clip((blob() - 120) / 60, 0, 1), atol=1e-6)


@pytest.mark.parametrize("zscore", ["whole", "foreground"])
def test_statistics_are_of_what_was_scanned_not_of_the_padding(tmp_path, zscore):
    path = write(tmp_path / "a.nii.gz", blob())
    settings = Preprocess(shape=(15, 13, 11), zscore=zscore, pad=5000.0)
    values = prepare_volume(path, settings).voxels[..., 0]
    scanned = values[1:10, 1:12, 1:14]
    chosen = scanned[blob() > -1000] if zscore == "foreground" else scanned
    np.testing.assert_allclose([chosen.mean(), chosen.std()], [0, 1], atol=1e-4)


def test_percentiles_clip_outliers(tmp_path):
    voxels = blob()
    voxels[2, 3, 4] = 30000
    values = prepare_volume(
        write(tmp_path / "a.nii", voxels), Preprocess(clip_percentiles=(0.5, 99.5))
    ).voxels
    assert values.max() < 210


def test_the_foreground_box_leaves_its_margin(tmp_path):
    path = write(tmp_path / "a.nii.gz", blob())
    for threshold in (None, 0.0):
        settings = Preprocess(foreground_crop=True, foreground_threshold=threshold, foreground_margin_mm=2.0)
        volume = prepare_volume(path, settings)
        np.testing.assert_array_equal(volume.voxels[..., 0], blob()[1:7, 2:10, 3:12])
    with pytest.raises(VolumeError, match=r"a\.nii\.gz: .*foreground_threshold=900"):
        prepare_volume(path, Preprocess(foreground_crop=True, foreground_threshold=900))


def test_scaling_is_applied_after_the_resample_as_before_it(tmp_path):
    image = nib.Nifti1Image(blob(), np.diag([*SPACING, 1.0]))
    image.header.set_slope_inter(-0.5, 30)
    nib.save(image, tmp_path / "scaled.nii")
    plain = write(tmp_path / "plain.nii", (blob() * -0.5 + 30).astype(np.float32), np.diag([*SPACING, 1.0]))
    for settings in (EVERY_STEP, Preprocess(foreground_crop=True, foreground_threshold=100.0)):
        ours, reference = prepare_volume(tmp_path / "scaled.nii", settings), prepare_volume(plain, settings)
        np.testing.assert_allclose(ours.voxels, reference.voxels, atol=1e-3)


def test_nonfinite_voxels_take_the_padding_value_or_refuse_the_image(tmp_path):
    voxels = blob().astype(np.float32)
    voxels[4, 4, 4], voxels[4, 4, 5], voxels[4, 4, 6] = np.nan, np.inf, -np.inf
    path = write(tmp_path / "a.nii.gz", voxels)
    values = prepare_volume(path, Preprocess()).voxels[..., 0]
    assert (values[4, 4, 4:7] == -1000).all()
    assert (prepare_volume(path, preset("ct")).voxels[4, 4, 4:7] == 0).all()
    assert np.isfinite(prepare_volume(path, EVERY_STEP).voxels).all()
    with pytest.raises(VolumeError, match=r"a\.nii\.gz: 3 of 1,287 "):
        prepare_volume(path, Preprocess(nonfinite="error"))
    with pytest.raises(VolumeError, match=r"b\.nii: "):
        prepare_volume(write(tmp_path / "b.nii", np.full(SHAPE, np.nan)), Preprocess())


def test_a_constant_image_is_refused_for_a_standard_score_but_not_for_a_window(tmp_path):
    path = write(tmp_path / "a.nii", np.full(SHAPE, 7, np.int16))
    for name in ("whole", "foreground"):
        with pytest.raises(VolumeError, match=r"a\.nii: .* 7.*preprocess\.zscore"):
            prepare_volume(path, Preprocess(zscore=name))
    assert (prepare_volume(path, Preprocess(window_hu=(0, 14))).voxels == 0.5).all()


def test_numbers_beyond_float32_are_refused_or_padded(tmp_path):
    voxels = blob().astype(np.float64)
    voxels[0, 0, 0] = 1e300
    assert prepare_volume(write(tmp_path / "a.nii", voxels), Preprocess()).voxels[0, 0, 0] == -1000
    image = nib.Nifti1Image(blob(), np.eye(4))
    image.header.set_slope_inter(3e38, 0)
    nib.save(image, tmp_path / "b.nii")
    with pytest.raises(VolumeError, match=r"b\.nii: .*float32"):
        prepare_volume(tmp_path / "b.nii", Preprocess())


def test_a_grid_beyond_the_size_limit_is_refused_with_the_spacing_of_the_file(tmp_path):
    path = write(tmp_path / "a.nii", blob(), np.diag([9000.0, 9000.0, 9000.0, 1.0]))
    with pytest.raises(VolumeError, match=r"a\.nii: .*9000, 9000, 9000 mm"):
        prepare_volume(path, Preprocess(spacing=(1, 1, 1)))


def test_channels_are_stacked_when_they_share_a_grid(tmp_path):
    paths = [write(tmp_path / f"{seed}.nii", blob(seed=seed)) for seed in range(2)]
    voxels = prepare_volume(paths, Preprocess()).voxels
    np.testing.assert_array_equal(voxels, np.stack([blob(seed=0), blob(seed=1)], -1))


def test_channels_on_other_grids_are_refused_or_resampled_onto_the_first(tmp_path):
    first = write(tmp_path / "t1.nii", blob())
    moved = write(tmp_path / "flair.nii", blob(), codes="LPI")
    with pytest.raises(VolumeError, match=r"t1\.nii: .*9x11x13.*flair\.nii"):
        prepare_volume([first, moved], Preprocess())
    voxels = prepare_volume([first, moved], Preprocess(same_grid=False)).voxels
    np.testing.assert_array_equal(voxels[..., 0], voxels[..., 1])


def test_a_fourth_axis_can_be_channels(tmp_path):
    voxels = np.stack([blob(seed=0), blob(seed=1)], -1)
    nib.save(nib.Nifti1Image(voxels, np.diag([*SPACING, 1])), tmp_path / "a.nii")
    tensor = prepare_tensor(tmp_path / "a.nii", Preprocess(time_axis="channels", shape=SHAPE[::-1]))
    np.testing.assert_array_equal(tensor, to_tensor_axes(voxels))


def test_every_preset_gives_finite_voxels(tmp_path):
    for name in PRESETS:
        tensor = prepare_tensor(
            write(tmp_path / "a.nii", blob()), preset(name, shape=(8, 8, 8), foreground_crop=True)
        )
        assert np.isfinite(tensor).all()
        with pytest.raises(ValueError, match=r"'pet'.* ct, mri, mask, none"):
            preset("pet")


def test_a_mask_keeps_its_labels(tmp_path):
    labels = (blob() > 0) * np.int16(7)
    values = prepare_volume(write(tmp_path / "a.nii", labels), preset("mask", spacing=(1.1, 1.2, 1.3))).voxels
    assert set(np.unique(values)) == {0, 7}


def test_settings_hash_by_value_and_take_lists():
    assert hash(Preprocess(spacing=[1, 2, 3])) == hash(Preprocess(spacing=(1, 2, 3)))


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(ValueError, match="preprocess: ") as caught:
        Preprocess(
            spacing=(0, 1, 1),
            shape=(1, 2),
            fit="squash",
            zscore="maybe",
            window_hu=(5, 5),
            clip_percentiles=(-1, 101),
            axcodes="RAX",
            pad=float("nan"),
            foreground_margin_mm=-1,
        )
    for name in (
        "spacing",
        "shape",
        "fit",
        "zscore",
        "window_hu",
        "clip_percentiles",
        "axcodes",
        "pad is",
        "margin",
    ):
        assert name in str(caught.value)
    with pytest.raises(ValueError, match=r"fit=resize.*spacing"):
        Preprocess(fit="resize", spacing=(1, 1, 1), shape=(1, 2, 3))


def test_a_shape_beyond_all_memory_is_refused_before_a_file_is_blamed():
    with pytest.raises(ValueError, match=r"shape is \[1600, 2400, 2400\].* 8\.6 GB .* 37"):
        Preprocess(shape=(1600, 2400, 2400))
