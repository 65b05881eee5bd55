"""Reading gives the right voxels and affine, or an error that names the file and the fix."""

import gzip
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from voxlift.data_pipelines.readers import load_volume, read_stored
from voxlift.data_pipelines.readers.itk import read_itk
from voxlift.data_pipelines.volume import VolumeError, to_volume

SHAPE = (5, 7, 11)
OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.3, -0.2, 0.1) @ np.diag([1.5, 2.0, 3.0]), [-10, 20, -30]
)
TYPES = ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]


def ramp(dtype="int16", shape=SHAPE):
    values = np.arange(np.prod(shape)).reshape(shape)
    return (
        values % 251 if np.dtype(dtype).itemsize == 1 else values * 3 - 100 * (np.dtype(dtype).kind != "u")
    ).astype(dtype)


def write_nifti(path, voxels, affine=OBLIQUE, *, kind=nib.Nifti1Image, change=None, order="<", slope=None):
    header = kind.header_class(endianness=order)
    image = kind(voxels, affine, header, dtype=voxels.dtype)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    if slope:
        image.header.set_slope_inter(*slope)
    nib.save(image, path)
    if change:
        # nibabel repairs what it saves, so an odd header is written by hand.
        raw = path.read_bytes()
        header = kind.header_class(raw[:348], check=False)
        change(header)
        path.write_bytes(header.binaryblock + raw[348:])
    return path


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_stored_type_in_both_byte_orders_gives_its_voxels(tmp_path, dtype, order):
    path = write_nifti(tmp_path / "a.nii.gz", ramp(dtype), order=order)
    volume = load_volume(path)
    np.testing.assert_array_equal(volume.voxels, ramp(dtype))
    assert volume.voxels.dtype == np.dtype(dtype)
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-5)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".img"])
@pytest.mark.parametrize("kind", ["1", "2"])
def test_single_files_and_pairs_of_both_versions_agree_with_nibabel(tmp_path, ending, kind):
    classes = {
        ("1", ".img"): nib.Nifti1Pair,
        ("2", ".img"): nib.Nifti2Pair,
        ("1", ".nii"): nib.Nifti1Image,
        ("2", ".nii"): nib.Nifti2Image,
    }
    path = write_nifti(tmp_path / f"a{ending}", ramp(), kind=classes[kind, ending.removesuffix(".gz")])
    for half in [path] if ending != ".img" else [path, path.with_suffix(".hdr")]:
        volume = load_volume(half)
        reference = nib.load(half)
        np.testing.assert_array_equal(volume.voxels, reference.get_fdata())
        np.testing.assert_allclose(volume.affine, reference.affine, atol=1e-6)
        assert read_stored(half).kind == f"nifti{kind}"


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("slope", [None, (0.25, -7.0), (-2.0, 3.0)])
def test_our_reader_and_simpleitk_agree_on_voxels_and_affine(tmp_path, dtype, slope):
    path = write_nifti(tmp_path / "a.nii.gz", ramp(dtype), slope=slope)
    ours, theirs = load_volume(path), to_volume(read_itk(path, kind="nifti1"))
    np.testing.assert_allclose(ours.voxels, theirs.voxels, rtol=1e-6)
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-4)


@pytest.mark.parametrize("unit", ["meter", "micron"])
def test_other_units_become_millimetres_as_in_simpleitk(tmp_path, unit):
    path = write_nifti(tmp_path / "a.nii", ramp(), change=lambda header: header.set_xyzt_units(unit))
    factor = {"meter": 1000, "micron": 0.001}[unit]
    if unit == "micron":
        path = write_nifti(
            tmp_path / "a.nii",
            ramp(),
            affine=np.diag([1000, 1000, 1000, 1]) @ OBLIQUE,
            change=lambda header: header.set_xyzt_units(unit),
        )
        factor = 1
    expected = np.diag([factor] * 3 + [1.0]) @ OBLIQUE
    np.testing.assert_allclose(load_volume(path).affine, expected, rtol=1e-4, atol=1e-3)
    assert read_stored(path).notes
    theirs = read_itk(path, kind="nifti1")
    np.testing.assert_allclose(load_volume(path).affine, theirs.affine, rtol=1e-4, atol=1e-3)


def test_stored_integers_and_scaling_stay_apart(tmp_path):
    stored = read_stored(write_nifti(tmp_path / "a.nii.gz", ramp(), slope=(0.5, -1024.0)))
    assert stored.voxels.dtype == np.int16
    assert (stored.slope, stored.inter) == (0.5, -1024.0)
    np.testing.assert_array_equal(to_volume(stored).voxels, ramp() * 0.5 - 1024)


def test_mgh_agrees_with_nibabel(tmp_path):
    for name in ("a.mgh", "a.mgz"):
        nib.save(nib.MGHImage(ramp("float32"), OBLIQUE), tmp_path / name)
        volume = load_volume(tmp_path / name)
        np.testing.assert_array_equal(volume.voxels, ramp("float32"))
        np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-4)


@pytest.mark.parametrize("ending", ["nrrd", "nhdr", "mha", "mhd"])
@pytest.mark.parametrize("compressed", [False, True])
def test_nrrd_and_metaimage_agree_with_the_same_image_as_nifti(tmp_path, ending, compressed):
    source = write_nifti(tmp_path / "a.nii", ramp())
    path = tmp_path / f"b.{ending}"
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(source)), str(path), compressed)
    np.testing.assert_array_equal(load_volume(path).voxels, ramp())
    np.testing.assert_allclose(load_volume(path).affine, OBLIQUE, atol=1e-4)


def test_the_reader_is_chosen_by_content_not_by_name(tmp_path):
    source = write_nifti(tmp_path / "a.nii.gz", ramp())
    nameless = tmp_path / "scan_without_ending"
    nameless.write_bytes(source.read_bytes())
    wrong = tmp_path / "a.nrrd"
    wrong.write_bytes(gzip.decompress(source.read_bytes()))
    for path in (nameless, wrong):
        np.testing.assert_array_equal(load_volume(path).voxels, ramp())


def test_a_gzip_of_several_members_is_one_file(tmp_path):
    whole = gzip.decompress(write_nifti(tmp_path / "a.nii.gz", ramp()).read_bytes())
    path = tmp_path / "b.nii.gz"
    path.write_bytes(
        b"".join(gzip.compress(whole[start : start + 100]) for start in range(0, len(whole), 100))
    )
    np.testing.assert_array_equal(load_volume(path).voxels, ramp())


def test_a_trailing_singleton_axis_is_no_fourth_axis(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", ramp()[..., None])
    assert load_volume(path).voxels.shape == SHAPE


def test_the_fourth_axis_is_refused_or_folded_as_time_axis_asks(tmp_path):
    voxels = ramp(shape=(*SHAPE, 3))
    path = write_nifti(tmp_path / "a.nii.gz", voxels)
    with pytest.raises(
        VolumeError, match=r"data\.time_axis=channels, data\.time_axis=depth .* data\.time_axis=first"
    ):
        load_volume(path)
    with pytest.raises(VolumeError, match=r"data\.time_axis=depth .* 5x7x11x3"):
        load_volume(path, time_axis="depth")
    with pytest.raises(ValueError, match=r"time_axis.*'last'.*error, channels"):
        load_volume(path, time_axis="last")
    np.testing.assert_array_equal(load_volume(path, time_axis="channels").voxels, voxels)
    np.testing.assert_array_equal(load_volume(path, time_axis="first").voxels, voxels[..., 0])


def test_a_cine_of_one_slice_becomes_a_volume_whose_third_axis_is_time(tmp_path):
    voxels = ramp(shape=(5, 7, 1, 11))
    volume = load_volume(write_nifti(tmp_path / "a.nii.gz", voxels), time_axis="depth")
    np.testing.assert_array_equal(volume.voxels, voxels[:, :, 0])
    np.testing.assert_allclose(volume.affine, np.diag([1.5, 2.0, 1.0, 1.0]), atol=1e-6)


def test_prefer_chooses_between_sform_and_qform(tmp_path):
    other = np.diag([2.0, 2.0, 2.0, 1.0])
    path = write_nifti(tmp_path / "a.nii", ramp(), change=lambda header: header.set_qform(other, 1))
    np.testing.assert_allclose(load_volume(path).affine, OBLIQUE, atol=1e-5)
    np.testing.assert_allclose(load_volume(path, prefer="qform").affine, other, atol=1e-5)
    with pytest.raises(ValueError, match=r"prefer.*'both'.*sform, qform"):
        load_volume(path, prefer="both")


def test_without_sform_and_qform_the_affine_is_nibabels_and_noted(tmp_path):
    def forget(header):
        header["sform_code"] = header["qform_code"] = 0

    path = write_nifti(tmp_path / "a.nii", ramp(), change=forget)
    stored = read_stored(path)
    np.testing.assert_allclose(stored.affine, nib.load(path).affine)
    assert "sform" in stored.notes[0]
    assert "qform" in stored.notes[0]


def test_a_sheared_affine_is_kept_as_it_is(tmp_path):
    sheared = OBLIQUE.copy()
    sheared[:3, 2] += 0.4 * sheared[:3, 1]

    def only_sform(header):
        header.set_sform(sheared, 1)
        header["qform_code"] = 0

    path = write_nifti(tmp_path / "a.nii", ramp(), change=only_sform)
    np.testing.assert_allclose(load_volume(path).affine, sheared, atol=1e-5)


def write_dicom(folder, voxels, step=(0.0, 0.0, 3.0), skip=(), series="1.2.3"):
    folder.mkdir(exist_ok=True)
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for index in range(voxels.shape[2]):
        if index in skip:
            continue
        image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels[:, :, index].T[None]))
        image.SetSpacing([1.5, 2.0, 3.0])
        place = "\\".join(str(origin + index * part) for origin, part in zip((10, 20, 30), step, strict=True))
        for key, value in {
            "0020|000e": series,
            "0020|0032": place,
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0013": str(index),
            "0008|0060": "CT",
            "0028|1052": "-1024",
            "0028|1053": "1",
        }.items():
            image.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{series}_{index:03d}.dcm"))
        writer.Execute(image)
    return folder


def test_a_dicom_series_gives_voxels_and_affine_in_ras(tmp_path):
    volume = load_volume(write_dicom(tmp_path / "ct", ramp()))
    np.testing.assert_array_equal(volume.voxels, ramp())
    expected = np.array([[-1.5, 0, 0, -10], [0, -2, 0, -20], [0, 0, 3, 30], [0, 0, 0, 1]])
    np.testing.assert_allclose(volume.affine, expected, atol=1e-5)


def test_a_tilted_gantry_keeps_its_shear(tmp_path):
    volume = load_volume(write_dicom(tmp_path / "ct", ramp(), step=(0.0, 1.0, 3.0)))
    np.testing.assert_allclose(volume.affine[:3, 2], [0, -1, 3], atol=1e-5)


def test_dicom_folders_that_are_not_one_even_series_are_refused(tmp_path):
    with pytest.raises(VolumeError, match=r"gap: .*evenly"):
        load_volume(write_dicom(tmp_path / "gap", ramp(), skip=(4,)))
    with pytest.raises(VolumeError, match=r"two: .*1\.2\.3 \(11 files\); 1\.2\.4 \(11 files\)"):
        load_volume(write_dicom(write_dicom(tmp_path / "two", ramp()), ramp(), series="1.2.4"))
    with pytest.raises(VolumeError, match=r"1\.2\.3_000\.dcm: .*folder"):
        load_volume(tmp_path / "gap" / "1.2.3_000.dcm")
    (tmp_path / "none").mkdir()
    with pytest.raises(VolumeError, match="none: "):
        load_volume(tmp_path / "none")


def set_field(**fields):
    def change(header):
        for name, value in fields.items():
            header[name] = value

    return change


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dim": [3, 500, 700, 1100, 1, 1, 1, 1]}, r"claims [\d,]+ bytes"),
        ({"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]}, r"claims [\d,]+ bytes"),
        ({"dim": [3, 5, 7, 0, 1, 1, 1, 1]}, r"5x-?\d+x"),
        ({"dim": [3, 5, -7, 11, 1, 1, 1, 1]}, r"5x-?\d+x"),
        ({"dim": [2, 5, 7, 1, 1, 1, 1, 1]}, "2D image of 5x7"),
        ({"dim": [5, 5, 7, 1, 2, 2, 1, 1]}, "5x7x1x2x2"),
        ({"dim": [9, 5, 7, 11, 1, 1, 1, 1]}, "axes is 9"),
        ({"datatype": 4242}, "data type code 4242"),
        ({"vox_offset": np.nan}, "byte nan"),
        ({"scl_slope": 1, "scl_inter": np.inf}, "scaling"),
        ({"srow_x": [np.nan] * 4}, r"affine holds NaN.* preprocess\.prefer=qform"),
        ({"srow_x": [0] * 4, "srow_y": [0] * 4, "srow_z": [0] * 4}, "0 x 0 x 0 mm"),
        ({"srow_x": [1, 0, 0, 0], "srow_y": [1, 1e-6, 0, 0]}, "axes of the affine"),
        ({"intent_code": 3001}, "CIFTI"),
        ({"sizeof_hdr": 12}, "348"),
    ],
)
def test_damaged_headers_end_in_an_error_that_names_file_and_field(tmp_path, fields, message):
    path = write_nifti(tmp_path / "a.nii", ramp(), change=set_field(**fields))
    with pytest.raises(VolumeError, match=message) as caught:
        load_volume(path)
    assert str(path) in str(caught.value)


def test_colour_and_complex_are_refused(tmp_path):
    colour = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colour, np.eye(4)), tmp_path / "rgb.nii")
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.complex64), np.eye(4)), tmp_path / "complex.nii")
    rgb = SimpleITK.GetImageFromArray(np.zeros((11, 7, 5, 3), np.uint8), isVector=True)
    SimpleITK.WriteImage(rgb, str(tmp_path / "rgb.nrrd"))
    for name in ("rgb.nii", "rgb.nrrd"):
        with pytest.raises(VolumeError, match=r"rgb\.\w+: .*\(RGB\)"):
            load_volume(tmp_path / name)
    with pytest.raises(VolumeError, match=r"complex\.nii: .*complex64"):
        load_volume(tmp_path / "complex.nii")


def test_a_file_of_another_kind_is_named_with_its_kind(tmp_path):
    cases = {
        "a.png": (b"\x89PNG\r\n" + bytes(600), "PNG"),
        "a.nii.bz2": (b"BZh91AY" + bytes(600), "bzip2"),
        "page.nii.gz": (b"<!DOCTYPE html><html>404</html>", "web page"),
        "lfs.nii.gz": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        "a.txt": (b"hello", "NIfTI"),
        "empty.nii": (b"", r"0 bytes"),
        "a.hdr": (b"\x5c\x01\0\0" + bytes(344), r"Analyze 7\.5"),
        "broken.nii.gz": (b"\x1f\x8b" + b"\xff" * 99, "gzip"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(VolumeError, match=message):
            load_volume(tmp_path / name)
    with pytest.raises(VolumeError, match=r"absent\.nii"):
        load_volume(tmp_path / "absent.nii")


def test_half_a_pair_names_the_missing_half(tmp_path):
    path = write_nifti(tmp_path / "a.img", ramp(), kind=nib.Nifti1Pair)
    path.unlink()
    with pytest.raises(VolumeError, match=r"a\.hdr: .*a\.img"):
        load_volume(tmp_path / "a.hdr")


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.99])
def test_a_cut_off_file_is_refused_whatever_its_format(tmp_path, kept):
    noise = np.random.default_rng(0).integers(0, 3000, (20, 21, 22)).astype(np.int16)
    source = write_nifti(tmp_path / "a.nii.gz", noise)
    image = SimpleITK.ReadImage(str(source))
    for name in ("a.nii", "a.nrrd", "b.mha"):
        SimpleITK.WriteImage(image, str(tmp_path / name))
    nib.save(nib.MGHImage(noise, OBLIQUE), tmp_path / "a.mgz")
    for name in ("a.nii.gz", "a.nii", "a.nrrd", "b.mha", "a.mgz"):
        path = tmp_path / name
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * kept)])
        with pytest.raises(VolumeError, match=name):
            load_volume(path)


def test_a_flipped_bit_in_a_gzip_stream_is_found_by_its_checksum(tmp_path):
    noise = np.random.default_rng(0).integers(0, 3000, (20, 21, 22)).astype(np.int16)
    path = write_nifti(tmp_path / "a.nii.gz", noise)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(VolumeError, match=r"a\.nii\.gz: .*checksum"):
        load_volume(path)


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    import tracemalloc

    whole = gzip.decompress(write_nifti(tmp_path / "a.nii.gz", ramp()).read_bytes())
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(whole + bytes(300_000_000), 1))
    tracemalloc.start()
    np.testing.assert_array_equal(load_volume(path).voxels, ramp())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_an_image_beyond_the_size_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("voxlift.data_pipelines.readers.decompress.MAX_BYTES", 500)
    with pytest.raises(VolumeError, match="GB"):
        load_volume(write_nifti(tmp_path / "a.nii.gz", ramp()))


def test_reading_warns_of_nothing(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", ramp())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_volume(str(path)).source == Path(path)


def test_a_broken_link_is_named_with_its_target(tmp_path):
    (tmp_path / "a.nii.gz").symlink_to(".git/annex/objects/x")
    with pytest.raises(VolumeError, match=r"a\.nii\.gz: .*\.git/annex/objects/x"):
        load_volume(tmp_path / "a.nii.gz")


def test_negative_voxel_sizes_are_taken_as_nibabel_takes_them_with_a_note(tmp_path):
    change = set_field(pixdim=[1, -1.5, 2, -3, 1, 1, 1, 1], sform_code=0)
    path = write_nifti(tmp_path / "a.nii", ramp(), change=change)
    stored = read_stored(path)
    np.testing.assert_allclose(stored.affine, nib.load(path).affine, atol=1e-5)
    assert len(stored.notes) == 1
    assert "negative" in stored.notes[0]
