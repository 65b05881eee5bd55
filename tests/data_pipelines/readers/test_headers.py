"""Headers of NRRD and MetaImage mean what their standards say; where ITK differs, a note says so."""

import bz2
import gzip
import os
import zlib

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from voxlift.data_pipelines.geometry import spacing_of
from voxlift.data_pipelines.readers import load_volume, read_stored
from voxlift.data_pipelines.readers.itk import affine_of_image, array_of_image
from voxlift.data_pipelines.volume import VolumeError, real_values

SHAPE = (3, 4, 5)
VOXELS = np.arange(60, dtype="<i2").reshape(SHAPE, order="F")
RAW = VOXELS.tobytes(order="F")
SIZES = "3 4 5"
META = f"ObjectType = Image\nNDims = 3\nDimSize = {SIZES}\nElementType = MET_SHORT\nBinaryData = True\n"
NRRD = f"NRRD0005\ntype: short\ndimension: 3\nsizes: {SIZES}\nendian: little\n"
PLAIN = NRRD + "encoding: raw\n"
ORIENTED = PLAIN + "space: left-posterior-superior\nspace origin: (1,2,3)\n"


def write_meta(folder, fields, data=RAW):
    """Write a header with its voxels in the same file, or as `fields` says."""
    path = folder / "a.mhd"
    is_local = "ElementDataFile" not in fields
    path.write_bytes(
        (META + fields + "ElementDataFile = LOCAL\n" * is_local).encode() + (data if is_local else b"")
    )
    return path


def write_nrrd(folder, header, data=RAW):
    path = folder / "a.nrrd"
    path.write_bytes(header.encode("utf-8", "surrogateescape") + b"\n" + data)
    return path


def write_parts(folder):
    """Write the voxels as files of other names: whole, packed, behind other bytes, and slice by slice."""
    (folder / "sub").mkdir()
    (folder / "sub" / "v.raw").write_bytes(RAW)
    (folder / "v 1.raw").write_bytes(RAW)
    (folder / "late.raw").write_bytes(b"12\n45" + RAW)
    (folder / "v.gz").write_bytes(gzip.compress(RAW))
    (folder / "v.z").write_bytes(zlib.compress(RAW))
    for k in range(5):
        (folder / f"s{k:03d}.raw").write_bytes(VOXELS[:, :, k].tobytes(order="F"))


NAMES = "".join(f"s{k:03d}.raw\n" for k in range(5))
ELSEWHERE_META = [
    "ElementDataFile = v 1.raw\n",
    "ElementDataFile = sub/v.raw\n",
    "ElementDataFile = sub\\v.raw\n",
    "ElementDataFile = ../{folder}/v 1.raw\n",
    "HeaderSize = 5\nElementDataFile = late.raw\n",
    "HeaderSize = -1\nElementDataFile = late.raw\n",
    "CompressedData = True\nElementDataFile = v.z\n",
    "CompressedData = True\nElementDataFile = v.gz\n",
    f"ElementDataFile = LIST\n{NAMES}",
    f"ElementDataFile = LIST 2\n{NAMES}",
    "ElementDataFile = s%03d.raw 0 4 1\n",
]
ELSEWHERE_NRRD = [
    "encoding: raw\ndata file: v 1.raw\n",
    "encoding: raw\ndatafile: ./sub/v.raw\n",
    "encoding: raw\ndata file: ../{folder}/v 1.raw\n",
    "encoding: raw\nbyte skip: 5\ndata file: late.raw\n",
    "encoding: raw\nbyte skip: -1\ndata file: late.raw\n",
    "encoding: raw\nline skip: 1\nbyte skip: 2\ndata file: late.raw\n",
    "encoding: gzip\ndata file: v.gz\n",
    f"encoding: raw\ndata file: LIST\n{NAMES}",
    "encoding: raw\ndata file: s%03d.raw 0 4 1 2\n",
]


@pytest.mark.parametrize(
    ("start", "form"), [(META, form) for form in ELSEWHERE_META] + [(NRRD, form) for form in ELSEWHERE_NRRD]
)
def test_voxels_elsewhere_are_read_and_their_absence_or_end_is_named(tmp_path, start, form):
    write_parts(tmp_path)
    path = tmp_path / "a.header"
    path.write_text(start + form.format(folder=tmp_path.name))
    np.testing.assert_array_equal(load_volume(path).voxels, VOXELS)
    data = [file for file in tmp_path.rglob("*") if file.is_file() and file != path]
    for file in data:
        file.write_bytes(file.read_bytes()[: -30 if "v." in file.name else -9])
    with pytest.raises(VolumeError, match=r"a\.header: .*cut off"):
        load_volume(path)
    for file in data:
        file.unlink()
    with pytest.raises(VolumeError, match=r"a\.header: .*no such file"):
        load_volume(path)


@pytest.mark.parametrize(
    ("fields", "data"),
    [
        ("", RAW),
        ("ElementByteOrderMSB = True\n", VOXELS.astype(">i2").tobytes(order="F")),
        ("CompressedData = True\n", zlib.compress(RAW)),
        ("BinaryData = False\n", " ".join(map(str, VOXELS.ravel(order="F"))).encode()),
    ],
)
def test_every_encoding_of_metaimage_is_read(tmp_path, fields, data):
    path = write_meta(tmp_path, "", data)
    path.write_bytes(path.read_bytes().replace(b"BinaryData = True\n", b"BinaryData = True\n" * (not fields)))
    path.write_bytes(path.read_bytes().replace(b"ElementDataFile", fields.encode() + b"ElementDataFile"))
    np.testing.assert_array_equal(load_volume(path).voxels, VOXELS)


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("raw", RAW),
        ("gzip", gzip.compress(RAW, mtime=0)),  # the ids hold the data
        ("gz", gzip.compress(RAW[:50], mtime=0) + gzip.compress(RAW[50:], mtime=0)),
        ("bzip2", bz2.compress(RAW)),
        ("hex", RAW.hex().encode()),
        ("ascii", ", ".join(map(str, VOXELS.ravel(order="F"))).encode()),
    ],
)
def test_every_encoding_of_nrrd_is_read_and_its_end_noticed(tmp_path, encoding, data):
    header = NRRD + f"encoding: {encoding}\n"
    np.testing.assert_array_equal(load_volume(write_nrrd(tmp_path, header, data)).voxels, VOXELS)
    with pytest.raises(VolumeError, match=r"a\.nrrd: .*(cut off|damaged)"):
        load_volume(write_nrrd(tmp_path, header, data[:-40]))


SAME_AS_ITK = [
    PLAIN + "spacings: 1 2 3\n",
    PLAIN + "spacings: 1 2 nan\n",
    PLAIN + "spacings: 1 2 3\naxis mins: 1 2 3\ncenters: node node node\n",
    *(
        PLAIN + f"space: {space}\nspace directions: (0.6,0.8,0) (-1.6,1.2,0) (0,0,3)\nspace origin: (1,2,3)\n"
        for space in ("LPS", "RAS", "LAS", "right-anterior-superior", "scanner-xyz", "3D-right-handed")
    ),
    PLAIN + "space dimension: 3\nspace directions: (1,0,0) (0,2,0) (0,0,3)\n",
]


@pytest.mark.parametrize("header", SAME_AS_ITK)
def test_the_space_of_nrrd_is_that_of_itk(tmp_path, header):
    stored = read_stored(write_nrrd(tmp_path, header))
    image = SimpleITK.ReadImage(str(stored.source))
    np.testing.assert_array_equal(stored.voxels, array_of_image(image))
    np.testing.assert_allclose(stored.affine, affine_of_image(image), atol=1e-12)
    is_named = any(name in header for name in ("space: LPS", "AS\n", "superior"))
    assert bool(stored.notes) is not is_named


@pytest.mark.parametrize(
    "fields",
    [
        "ElementSpacing = 1 2 3\nOffset = 1 2 3\n",
        "ElementSize = 1 2 3\nPosition = 1 2 3\n",
        "ElementSize = 4 5 6\nElementSpacing = 1 2 3\nOrigin = 1 2 3\n",
        "ElementSpacing = 1 2 3\nTransformMatrix = 0 1 0 0 0 1 1 0 0\nCenterOfRotation = 9 9 9\n",
        "ElementSpacing = 1 2 3\nRotation = 0.6 0.8 0 -0.8 0.6 0 0 0 1\n",
    ],
)
def test_the_space_of_metaimage_is_that_of_itk(tmp_path, fields):
    stored = read_stored(write_meta(tmp_path, fields))
    image = SimpleITK.ReadImage(str(stored.source))
    np.testing.assert_array_equal(stored.voxels, array_of_image(image))
    np.testing.assert_allclose(stored.affine, affine_of_image(image), atol=1e-12)
    assert not stored.notes


DIRECTIONS = "space directions: (20,0,0) (0,30,0) (0,0,40)\n"


@pytest.mark.parametrize(
    ("header", "spacing"),
    [
        (ORIENTED + DIRECTIONS + 'space units: "um" "um" "um"\n', (0.04, 0.03, 0.02)),
        (ORIENTED + DIRECTIONS + 'space units: "µm" "microns" "mm"\n', (40, 0.03, 0.02)),
        (ORIENTED + DIRECTIONS + 'space units: "cm" "Centimeters" "cm"\n', (400, 300, 200)),
        (ORIENTED + DIRECTIONS + 'space units: "mm" "mm" "mm"\n', (40, 30, 20)),
        (ORIENTED + DIRECTIONS + 'space units: "voxel" "" "???"\n', (40, 30, 20)),
        (PLAIN + 'spacings: 1 2 3\nunits: "cm" "cm" "cm"\n', (30, 20, 10)),
        (PLAIN + "axis mins: 0 0 0\naxis maxs: 6 8 10\n", (2, 2, 2)),
        (PLAIN + "axis mins: 0 0 0\naxis maxs: 6 9 12\ncenters: node node node\n", (3, 3, 3)),
        (PLAIN + "axis mins: 0 0 0\naxis maxs: 6 8 10\nspacings: 1 1 1\n", (1, 1, 1)),
    ],
)
def test_units_and_limits_of_nrrd_give_millimetres_and_a_note(tmp_path, header, spacing):
    stored = read_stored(write_nrrd(tmp_path, header))
    np.testing.assert_allclose(spacing_of(stored.affine), spacing)
    itk = spacing_of(affine_of_image(SimpleITK.ReadImage(str(stored.source))))
    is_converted = not np.allclose(itk, spacing)
    assert any("(ITK" in note for note in stored.notes) is is_converted
    assert any("voxel" in note for note in stored.notes) is (
        "voxel" in header or "axis maxs: 6 " in header
    ) or ("spacings" in header)


def test_units_scale_the_origin_too(tmp_path):
    path = write_nrrd(tmp_path, ORIENTED + DIRECTIONS + 'space units: "cm" "cm" "cm"\n')
    np.testing.assert_allclose(load_volume(path).affine[:3, 3], (-10, -20, 30))


@pytest.mark.parametrize(
    ("unit", "spacing"), [("um", (0.03, 0.02, 0.01)), ("cm", (300, 200, 100)), ("?", (30, 20, 10))]
)
def test_units_of_metaimage_are_converted_with_a_note(tmp_path, unit, spacing):
    stored = read_stored(write_meta(tmp_path, f"ElementSpacing = 10 20 30\nDistanceUnits = {unit}\n"))
    np.testing.assert_allclose(spacing_of(stored.affine), spacing)
    assert len(stored.notes) == (unit != "?")


def test_the_intensity_function_of_metaimage_is_applied_with_a_note(tmp_path):
    function = "ElementToIntensityFunctionSlope = 2.5\nElementToIntensityFunctionOffset = -100\n"
    stored = read_stored(write_meta(tmp_path, "ElementSpacing = 1 2 3\n" + function))
    assert stored.voxels.dtype == np.int16
    np.testing.assert_array_equal(real_values(stored), VOXELS * np.float32(2.5) - 100)
    assert len(stored.notes) == 1
    useless = read_stored(
        write_meta(tmp_path, "ElementToIntensityFunctionSlope = 0\nElementSpacing = 1 1 1\n")
    )
    np.testing.assert_array_equal(real_values(useless), VOXELS)
    assert len(useless.notes) == 1


def test_a_header_without_voxel_size_or_space_gets_a_note(tmp_path):
    assert len(read_stored(write_meta(tmp_path, "")).notes) == 1
    assert len(read_stored(write_nrrd(tmp_path, PLAIN)).notes) == 2


LAYERS = f"NRRD0005\ntype: uchar\ndimension: 4\nsizes: 3 {SIZES}\nendian: little\nencoding: raw\n"
SPACED = (
    "space: left-posterior-superior\nspace directions: none (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n"
)


@pytest.mark.parametrize("layers", [2, 3, 4, 5])
def test_layers_of_a_segmentation_are_channels(tmp_path, layers):
    voxels = np.random.default_rng(0).integers(0, 2, (layers, *SHAPE)).astype(np.uint8)
    header = LAYERS.replace("sizes: 3", f"sizes: {layers}") + SPACED + "kinds: list domain domain domain\n"
    path = write_nrrd(tmp_path, header + "Segment0_Name:=a: b\n", voxels.tobytes(order="F"))
    np.testing.assert_array_equal(load_volume(path, time_axis="channels").voxels, np.moveaxis(voxels, 0, -1))
    with pytest.raises(VolumeError, match=r"time_axis=channels"):
        load_volume(path)


@pytest.mark.parametrize("kind", ["RGB-color", "3-color", "HSV-color", "vector"])
def test_three_bytes_that_may_be_colour_are_refused(tmp_path, kind):
    header = LAYERS + SPACED + f"kinds: {kind} domain domain domain\n"
    with pytest.raises(VolumeError, match="RGB"):
        load_volume(write_nrrd(tmp_path, header, bytes(180)), time_axis="channels")


@pytest.mark.parametrize(
    ("sizes", "kinds", "moved"),
    [
        ("3 4 5 2", "domain domain domain list", 3),
        ("2 3 4 5", "vector domain domain domain", 0),
        ("3 2 4 5", "space list space space", 1),
    ],
)
def test_the_component_axis_may_stand_anywhere(tmp_path, sizes, kinds, moved):
    shape = tuple(map(int, sizes.split()))
    voxels = np.arange(120, dtype="<i2").reshape(shape, order="F")
    header = PLAIN.replace("dimension: 3", "dimension: 4").replace(SIZES, sizes) + f"kinds: {kinds}\n"
    read = load_volume(write_nrrd(tmp_path, header, voxels.tobytes(order="F")), time_axis="channels").voxels
    np.testing.assert_array_equal(read, np.moveaxis(voxels, moved, -1))


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("short", "block", "type"),
        ("short", "complex", "type"),
        ("3 4 5", "3 4", "sizes"),
        ("3 4 5", "3 4 -5", "3x4x-5"),
        ("3 4 5", "300 400 500", "cut off"),
        ("3 4 5", "30000000 40000000 50000000", "GB"),
        ("little", "middle", "endian"),
        ("raw", "zip", "encoding"),
        ("dimension: 3", "dimension: three", "dimension"),
        ("endian: little\n", "", "endian"),
        ("endian", "sp\nendian", "line 5"),
        ("raw\n", "raw\ndata file: LIST\n", "no data file"),
        ("raw\n", "raw\ndata file: a%05000d.raw 1 9 1\n", "a%05000d"),
        ("raw\n", "raw\nspace directions: (1,0,0) (0,1,0)\n", "space directions"),
        ("raw\n", "raw\nspace directions: (1,0,0) (0,1,x) (0,0,1)\n", "0,1,x"),
        ("raw\n", "raw\nspacings: a b c\n", "spacings"),
        ("raw\n", "raw\nbyte skip: -7\n", "byte skip"),
    ],
)
def test_damaged_fields_of_nrrd_are_named(tmp_path, old, new, named):
    with pytest.raises(VolumeError) as caught:
        load_volume(write_nrrd(tmp_path, PLAIN.replace(old, new)))
    assert "a.nrrd" in str(caught.value)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("MET_SHORT", "MET_STRING", "ElementType"),
        ("3 4 5", "3 4", "DimSize"),
        ("3 4 5", "3 4 0", "3x4x0"),
        ("3 4 5", "300 400 500", "cut off"),
        ("NDims = 3", "NDims = x", "NDims"),
        ("BinaryData = True\n", "ElementNumberOfChannels = 1.5\n", "ElementNumberOfChannels"),
        ("BinaryData = True\n", "ElementSpacing = 1 2\n", "ElementSpacing"),
        ("BinaryData = True\n", "TransformMatrix = 1 0 0\n", "TransformMatrix"),
        ("BinaryData = True\n", "CompressedData = True\n", "damaged"),
        ("ElementDataFile = LOCAL\n", "", "ElementDataFile"),
        ("LOCAL", "LIST", "no data file"),
        ("LOCAL", "x%03d.raw 1 9 0", "no data file"),
    ],
)
def test_damaged_fields_of_metaimage_are_named(tmp_path, old, new, named):
    path = write_meta(tmp_path, "", b"")
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(VolumeError) as caught:
        load_volume(path)
    assert "a.mhd" in str(caught.value)
    assert named in str(caught.value)


@pytest.mark.parametrize("ending", ["nrrd", "mhd"])
def test_names_that_are_not_utf8_are_read_in_paths_and_in_headers(tmp_path, ending):
    name = os.fsdecode(b"caf\xe9.raw")
    (tmp_path / name).write_bytes(RAW)
    text = {"nrrd": PLAIN + f"data file: {name}\n", "mhd": META + f"ElementDataFile = {name}\n"}[ending]
    path = tmp_path / os.fsdecode(b"h\xe9." + ending.encode())
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    np.testing.assert_array_equal(load_volume(path).voxels, VOXELS)


@pytest.mark.parametrize("ending", ["nrrd", "nhdr", "mha", "mhd"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i4", "u4", "i8", "f4", "f8"])
def test_what_simpleitk_writes_is_read_as_simpleitk_reads_it(tmp_path, ending, dtype):
    draw = np.random.default_rng(0)
    for channels, is_packed in ((1, False), (2, True), (5, False)):
        voxels = draw.integers(0, 100, (5, 7, 11) + (channels,) * (channels > 1)).astype(dtype)
        image = SimpleITK.GetImageFromArray(voxels, isVector=channels > 1)
        image.SetSpacing([1.5, 2, 3])
        image.SetOrigin([1, -2, 3.25])
        image.SetDirection(nib.eulerangles.euler2mat(0.1, 0.2, 0.3).ravel())
        path = tmp_path / f"a.{ending}"
        SimpleITK.WriteImage(image, str(path), is_packed)
        stored = read_stored(path, time_axis="channels")
        np.testing.assert_array_equal(stored.voxels, array_of_image(image))
        assert stored.voxels.dtype == np.dtype(dtype)
        np.testing.assert_allclose(stored.affine, affine_of_image(image), atol=1e-12)
        assert not stored.notes
