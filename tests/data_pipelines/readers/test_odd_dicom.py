"""DICOM as found on disks: without preamble, beside DICOMDIR and pipes, under any name, scaled anywhere."""

import os

import numpy as np
import pytest
from pydicom._uid_dict import UID_dictionary
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

from dicom_files import CAPTURE, MR, SHAPE, VOXELS, frames, of, picture, write_bare, write_whole
from voxlift.data_pipelines.readers import load_volume, read_stored
from voxlift.data_pipelines.readers.dicom_lengths import find_overlong_element
from voxlift.data_pipelines.readers.identity import find_reading
from voxlift.data_pipelines.readers.recognise import is_dicom_image
from voxlift.data_pipelines.scans import find_scans
from voxlift.data_pipelines.tables.manifest import load_manifest
from voxlift.data_pipelines.volume import VolumeError, real_values

LATIN = os.fsdecode(b"caf\xe9")


def slices(**values):
    for k in range(SHAPE[2]):
        yield picture(
            MR,
            VOXELS[:, :, k].T,
            ImagePositionPatient=[0.0, 0.0, 2.0 * k],
            ImageOrientationPatient=[1.0, 0, 0, 0, 1, 0],
            PixelSpacing=[1.0, 1.0],
            InstanceNumber=k + 1,
            **values,
        )


def write_series(folder, write=write_whole, name="IM{}", **values):
    folder.mkdir(parents=True, exist_ok=True)
    for k, data in enumerate(slices(**values)):
        write(folder / name.format(k), data)
    return folder


@pytest.mark.parametrize("implicit", [True, False])
def test_slices_without_preamble_are_found_and_read_by_every_way_in(tmp_path, implicit):
    def write(path, data):
        write_bare(path, data, implicit=implicit)

    for name in ("a", "b"):
        write_series(tmp_path / "c" / name / f"{name}1", write)
    folder = tmp_path / "c" / "a" / "a1"
    assert is_dicom_image(folder / "IM0")
    np.testing.assert_array_equal(load_volume(folder).voxels, VOXELS)
    found = find_scans(tmp_path, image_columns=["image"])
    assert [scan.subject for scan in found] == ["c/a/a1", "c/b/b1"]
    assert [record.images[0].name for record in load_manifest(tmp_path / "c").records] == ["a1", "b1"]


def test_one_file_of_many_frames_without_preamble_is_read(tmp_path):
    write_bare(tmp_path / "a", frames(CAPTURE, [(1, 0)] * 4), implicit=False)
    np.testing.assert_array_equal(load_volume(tmp_path / "a").voxels, VOXELS)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08\0",
        b"\x08\0\x05\0CS\x0a\0",
        b"\x08\0" * 300,
        bytes(600),
        b"\x02\0\x10\0\xff\xff\xff\xff" * 50,
    ],
)
def test_other_bytes_are_not_taken_for_dicom(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert is_dicom_image(tmp_path / "a") is (content == b"\x08\0\x05\0CS\x0a\0") or not is_dicom_image(
        tmp_path / "a"
    )


def write_directory(path):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, "1.2.840.10008.1.3.10"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = of(FileSetID="X", DirectoryRecordSequence=[])
    data.file_meta = meta
    data.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize("name", ["DICOMDIR", "dicomdir", "index"])
def test_a_dicomdir_is_no_image_and_hides_none(tmp_path, name):
    write_directory(tmp_path / name)
    write_series(tmp_path / "s" / "1")
    assert [scan.subject for scan in find_scans(tmp_path, image_columns=["image"])] == ["s/1"]
    with pytest.raises(VolumeError, match=f"{name}: .*DICOMDIR"):
        load_volume(tmp_path / name)
    write_series(tmp_path / "class" / "subject")
    write_directory(tmp_path / "class" / name)
    assert load_volume(tmp_path / "class" / "subject").voxels.shape == SHAPE


@pytest.mark.parametrize(
    "other", ["DICOMDIR", "pipe", "loop", "broken", "._IM0", "notes.txt", LATIN, "folder"]
)
def test_what_lies_beside_the_slices_does_not_matter(tmp_path, other):
    path = write_series(tmp_path / "series") / other
    {
        "DICOMDIR": lambda: write_directory(path),
        "pipe": lambda: os.mkfifo(path),
        "loop": lambda: path.symlink_to("loop"),
        "broken": lambda: path.symlink_to("nowhere"),
        "folder": path.mkdir,
    }.get(other, lambda: path.write_bytes(b"text"))()
    stored = read_stored(path.parent)
    np.testing.assert_array_equal(stored.voxels, VOXELS)
    assert stored.source == path.parent


@pytest.mark.parametrize("place", ["file", "folder"])
def test_names_that_are_not_utf8_are_read_and_named_in_messages(tmp_path, place):
    folder = tmp_path / (LATIN if place == "folder" else "series")
    write_series(folder, name=LATIN + "{}" if place == "file" else "IM{}")
    stored = read_stored(folder)
    np.testing.assert_array_equal(stored.voxels, VOXELS)
    assert stored.source == folder
    sorted(folder.iterdir())[1].unlink()
    with pytest.raises(VolumeError) as caught:
        read_stored(folder)
    assert str(folder) in str(caught.value)
    one = tmp_path / f"{LATIN}.dcm"
    write_whole(one, frames(CAPTURE, [(1, 0)] * 4))
    assert read_stored(one).source == one
    one.write_bytes(one.read_bytes()[:-100])
    with pytest.raises(VolumeError) as caught:
        read_stored(one)
    assert str(one) in str(caught.value)


def readable_classes():
    return [uid for uid in UID_dictionary if uid.startswith("1.2.840.10008.5.1.4.1.1.")]


def test_the_scale_of_frames_is_applied_in_every_class_once(tmp_path):
    read = 0
    for sop in readable_classes():
        write_whole(tmp_path / "a.dcm", frames(sop, [(2, -7)] * 4))
        try:
            values = real_values(read_stored(tmp_path / "a.dcm"))
        except VolumeError:
            continue  # a class of which ITK reads no voxels
        np.testing.assert_array_equal(values, VOXELS * 2.0 - 7, err_msg=sop)
        read += 1
    assert read > 20


def test_a_scale_that_gdcm_leaves_out_gets_a_note_and_another_place_in_the_cache(tmp_path):
    path = tmp_path / "a.dcm"
    write_whole(path, frames(CAPTURE, [(2, -7)] * 4))
    stored = read_stored(path)
    assert (stored.slope, stored.inter, len(stored.notes)) == (2, -7, 1)
    assert find_reading(path)
    for data in (
        frames(CAPTURE, [(1, 0)] * 4),
        frames(CAPTURE, [(2, -7)] * 4, root={"RescaleSlope": 3, "RescaleIntercept": 1}),
    ):
        write_whole(path, data)
        assert not find_reading(path)
        assert not read_stored(path).notes
    np.testing.assert_array_equal(real_values(read_stored(path)), VOXELS * 3.0 + 1)


@pytest.mark.parametrize("scale", [[(2, 0), (2, 0), (3, 0), (2, 0)], [(0, 1)] * 4])
def test_frames_without_one_usable_scale_are_refused(tmp_path, scale):
    write_whole(tmp_path / "a.dcm", frames(CAPTURE, scale))
    with pytest.raises(VolumeError, match=r"a\.dcm: .*scaled"):
        load_volume(tmp_path / "a.dcm")


def test_values_that_a_viewer_shows_otherwise_get_a_note(tmp_path):
    table = of(LUTDescriptor=[2, 0, 16], LUTData=b"\0\0\1\0", ModalityLUTType="US")
    write_series(tmp_path / "lut", ModalityLUTSequence=[table])
    write_series(tmp_path / "inverse", PhotometricInterpretation="MONOCHROME1")
    write_series(tmp_path / "plain")
    notes = [len(read_stored(tmp_path / name).notes) for name in ("lut", "inverse", "plain")]
    assert notes == [1, 1, 0]


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
def test_a_file_that_is_cut_off_is_called_so(tmp_path, kept):
    folder = write_series(tmp_path / "series")
    write_whole(tmp_path / "a.dcm", frames(CAPTURE, [(1, 0)] * 4))
    for path in (folder / "IM3", tmp_path / "a.dcm"):  # without the last slice the others are even
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * kept)])
    for path, name in ((folder, "series"), (tmp_path / "a.dcm", r"a\.dcm")):
        with pytest.raises(VolumeError, match=f"{name}.*(cut off|damaged)"):
            load_volume(path)


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_series_of_which_no_slice_is_whole_is_called_damaged(tmp_path, kept):
    for path in write_series(tmp_path / "series").iterdir():
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(VolumeError, match=r"series: 4 DICOM file"):
        load_volume(tmp_path / "series")


@pytest.mark.parametrize("sop", ["1.2.840.10008.5.1.4.1.1.88.11", "1.2.840.10008.5.1.4.1.1.11.1"])
def test_a_report_or_presentation_beside_the_slices_is_ignored(tmp_path, sop):
    folder = write_series(tmp_path / "series")
    write_whole(
        folder / "report",
        of(SOPClassUID=sop, SOPInstanceUID="1.2.9", SeriesInstanceUID="1.2.4", Modality="SR"),
    )
    np.testing.assert_array_equal(load_volume(folder).voxels, VOXELS)


def test_whole_files_of_every_form_pass_the_check_of_lengths(tmp_path):
    data = frames(CAPTURE, [(2, -7)] * 4)
    for sequence in (data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence):
        assert sequence
    write_whole(tmp_path / "whole", data)
    for implicit in (True, False):
        write_bare(tmp_path / f"bare{implicit}", frames(CAPTURE, [(1, 0)] * 4), implicit=implicit)
    undefined = frames(CAPTURE, [(1, 0)] * 4)
    undefined["SharedFunctionalGroupsSequence"].is_undefined_length = True
    undefined["PerFrameFunctionalGroupsSequence"].is_undefined_length = True
    write_whole(tmp_path / "undefined", undefined)
    packed = frames(CAPTURE, [(1, 0)] * 4)
    packed.PixelData = encapsulate([b"\xff\xd8" + bytes(30)] * 4)
    packed["PixelData"].is_undefined_length = True
    packed.file_meta = FileMetaDataset()
    packed.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    packed.save_as(tmp_path / "packed", enforce_file_format=True)
    assert {path.name: find_overlong_element(path) for path in tmp_path.iterdir()} == dict.fromkeys(
        ("whole", "bareTrue", "bareFalse", "undefined", "packed"), ""
    )
    for name in ("whole", "bareTrue", "bareFalse", "undefined"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:-30])
        assert "7fe0,0010" in find_overlong_element(path)


@pytest.mark.parametrize("position", [[0.0, 0.0], [0.0, 0.0, 0.0, 0.0], ["1e400", "0", "0"]])
def test_a_frame_with_an_incomplete_position_is_refused(tmp_path, position):
    data = frames(CAPTURE, [(1, 0)] * 4)
    data.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0].ImagePositionPatient = position
    write_whole(tmp_path / "a.dcm", data)
    with pytest.raises(VolumeError, match=r"a\.dcm: "):
        load_volume(tmp_path / "a.dcm")
