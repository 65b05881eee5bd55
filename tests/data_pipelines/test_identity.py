import os

import pytest

from voxlift.data_pipelines.readers.identity import identify_image


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
def test_every_file_of_an_image_tells_of_a_change(named, other, tmp_path):
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


def test_a_neighbour_of_another_name_tells_nothing(tmp_path):
    images = [_touch(tmp_path / name) for name in ("a.nii.gz", "a.nii.hdr", "ab.mhd", "ab.c.raw")]
    assert [len(identify_image(image)) for image in images] == [1] * 4


def test_an_image_that_is_not_there_differs_from_an_empty_one(tmp_path):
    image = tmp_path / "a.nii"
    absent = identify_image(image)
    _touch(image).write_bytes(b"")
    assert identify_image(image) != absent
