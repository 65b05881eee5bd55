"""An image is recognised by its files without decoding, and by its decoded voxels."""

import os
from pathlib import Path

import numpy as np
import pytest

from voxlift.data_pipelines.readers.identity import (
    WHOLE_BYTES,
    find_reading,
    hash_image,
    identify_image,
    is_blank,
)
from voxlift.data_pipelines.volume import Stored


def _touch(path):
    path.write_bytes(b"0")
    os.utime(path, ns=(1, 1))
    return path


@pytest.mark.parametrize(
    ("named", "other"),
    [
        ("a.hdr", "a.img"),
        ("a.img.gz", "a.hdr"),
        ("a.mhd", "a.raw"),
        ("a.b.mhd", "a.b.zraw"),
        ("a.nhdr", "a.raw.gz"),
        ("series", "series/deeper/1.dcm"),
    ],
)
def test_a_change_of_any_file_of_an_image_is_noticed(named, other, tmp_path):
    image, half = tmp_path / named, tmp_path / other
    half.parent.mkdir(parents=True, exist_ok=True)
    _touch(half)
    if not image.is_dir():
        _touch(image)
    known = identify_image(image)
    assert str(half) in [path for path, *_ in known]
    assert identify_image(image) == known
    os.utime(half, ns=(2, 2))
    assert identify_image(image) != known


def test_files_of_another_name_do_not_count(tmp_path):
    images = [_touch(tmp_path / name) for name in ("a.nii.gz", "a.nii.hdr", "ab.mhd", "ab.c.raw")]
    assert [len(identify_image(image)) for image in images] == [1] * 4


def test_an_absent_image_differs_from_an_empty_one(tmp_path):
    image = tmp_path / "a.nii"
    absent = identify_image(image)
    _touch(image).write_bytes(b"")
    assert identify_image(image) != absent


def image_of(voxels, affine=None, **scaling):
    return Stored(voxels, np.eye(4) if affine is None else affine, Path("a.nii"), "nifti1", **scaling)


@pytest.mark.parametrize("shape", [(3, 4, 5), (64, 65, 66), (3, 4, 5, 2), (50, 51, 52, 2)])
def test_the_hash_is_of_the_real_values_in_ras(shape):
    voxels = np.random.default_rng(0).integers(0, 99, shape).astype(np.int16)
    assert (4 * voxels.size > WHOLE_BYTES) == (shape[0] > 3)
    reference = hash_image(image_of(voxels))
    flipped = np.diag([-1.0, 2.0, 3.0, 1.0])
    same = [
        image_of(voxels.astype(np.float64)),
        image_of(np.asfortranarray(voxels)),
        image_of(voxels[::-1], flipped),
        image_of(2 * voxels + 1, slope=0.5, inter=-0.5),
    ]
    assert {hash_image(image) for image in same} == {reference}
    other = voxels.copy()
    other[1, 2, 3] += 1
    assert hash_image(image_of(other)) != reference
    assert hash_image(image_of(voxels[::-1])) != reference
    assert hash_image(image_of(voxels.reshape(*shape[2::-1], *shape[3:]))) != reference


def test_all_nans_and_both_zeros_are_alike():
    one, other = np.zeros((2, 3, 4), np.float32), np.zeros((2, 3, 4), np.float32)
    one[0, 0, 0], other[0, 0, 0] = np.nan, -np.float32(np.nan)
    other[0, 0, 1] = -0.0
    assert one.tobytes() != other.tobytes()
    assert hash_image(image_of(one)) == hash_image(image_of(other))
    assert np.signbit(other[0, 0, 1])


def test_an_image_is_blank_where_its_finite_values_are_equal():
    voxels = np.full((2, 3, 4), 7.0)
    assert is_blank(image_of(voxels))
    voxels[0, 0, 0] = np.nan
    assert is_blank(image_of(voxels))
    assert is_blank(image_of(np.full((2, 3, 4), np.inf)))
    voxels[0, 0, 1] = 8.0
    assert not is_blank(image_of(voxels))


HEADERS = {
    "a.mhd": b"NDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementSpacing = 1 1 1\n",
    "a.nrrd": b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\nspacings: 1 1 1\n",
}
REFERENCES = {"a.mhd": b"ElementDataFile = ", "a.nrrd": b"data file: "}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize(
    ("reference", "files"),
    [
        ("other name.bin", ["other name.bin"]),
        ("sub/v.raw", ["sub/v.raw"]),
        ("../elsewhere/v.raw", ["../elsewhere/v.raw"]),
        ("s%02d.raw 1 2 1", ["s01.raw", "s02.raw"]),
        ("LIST\none.raw\ntwo.raw\n", ["one.raw", "two.raw"]),
    ],
)
def test_every_file_that_a_header_refers_to_belongs_to_the_image(name, reference, files, tmp_path):
    folder = tmp_path / "here"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (folder / name).write_bytes(HEADERS[name] + REFERENCES[name] + reference.encode() + b"\n")
    absent = identify_image(folder / name)
    parts = [_touch(folder / file) for file in files]
    known = identify_image(folder / name)
    assert known != absent
    assert {path for path, *_ in known} >= set(map(str, parts))
    for part in parts:
        os.utime(part, ns=(2, 2))
        assert identify_image(folder / name) != known
        _touch(part)


def test_a_header_that_is_damaged_or_no_header_refers_to_nothing(tmp_path):
    for name, content in (
        ("a.mhd", b"NDims = 3\n"),
        ("b.nrrd", b"NRRD0004\nno field\n"),
        ("c.bin", b"\0" * 400),
    ):
        (tmp_path / name).write_bytes(content)
        assert len(identify_image(tmp_path / name)) == 1
        assert not find_reading(tmp_path / name)


def test_halves_in_capitals_belong_to_the_image(tmp_path):
    header, half = _touch(tmp_path / "A.HDR"), _touch(tmp_path / "A.IMG")
    assert str(half) in [path for path, *_ in identify_image(header)]


def test_only_images_that_earlier_versions_read_wrongly_are_marked(tmp_path):
    for name, fields in (
        ("a.mhd", b""),
        ("b.mhd", b"DistanceUnits = um\n"),
        ("c.mhd", b"ElementToIntensityFunctionSlope = 2\n"),
    ):
        header = HEADERS["a.mhd"] + fields + b"ElementDataFile = LOCAL\n"
        (tmp_path / name).write_bytes(header + bytes(8))
    for name, fields in (("d.nrrd", b""), ("e.nrrd", b'units: "um" "um" "um"\n')):
        (tmp_path / name).write_bytes(HEADERS["a.nrrd"] + fields + b"\n" + bytes(8))
    marked = [path.name for path in sorted(tmp_path.iterdir()) if find_reading(path)]
    assert marked == ["b.mhd", "c.mhd", "e.nrrd"]
