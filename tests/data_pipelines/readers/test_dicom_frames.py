"""Frames of one DICOM file come in the order of their positions, or are refused."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

from voxlift.data_pipelines.readers import load_volume, read_stored
from voxlift.data_pipelines.volume import VolumeError

SHAPE = (5, 7, 6)
VOXELS = np.random.default_rng(0).integers(-900, 900, SHAPE).astype(np.int16)
ORIGIN, SPACING = (10.0, 20.0, 30.0), (1.5, 2.0, 3.0)
AFFINE = np.array([[-1.5, 0, 0, -10], [0, -2, 0, -20], [0, 0, 3, 30], [0, 0, 0, 1.0]])


def of(**values):
    """A data set with these attributes."""
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def group(**values):
    return Sequence([of(**values)])


def picture(sop, pixels):
    """What any image of one grey channel needs; pixels [frames, rows, columns]."""
    made = of(SOPClassUID=sop, SOPInstanceUID=generate_uid(), StudyInstanceUID="1.2.3")
    made.SeriesInstanceUID, made.Modality = "1.2.4", "CT"
    made.Rows, made.Columns = pixels.shape[-2:]
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 1
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
    made.PixelData = np.ascontiguousarray(pixels, "<i2").tobytes()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def enhanced(path, *, slices=range(6), places=None, slopes=(1,) * 6, placed=6):
    """An enhanced CT file that holds these slices of `VOXELS` as its frames, one after the other."""
    order = list(slices)
    made = picture(EnhancedCTImageStorage, np.stack([VOXELS[:, :, k].T for k in order]))
    made.NumberOfFrames = len(order)
    shared = of(
        PixelMeasuresSequence=group(PixelSpacing=[SPACING[1], SPACING[0]], SliceThickness=SPACING[2]),
        PlaneOrientationSequence=group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
    )
    made.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for frame, place in enumerate(places or order):
        position = [*ORIGIN[:2], ORIGIN[2] + SPACING[2] * place]
        scaled = group(RescaleSlope=slopes[frame], RescaleIntercept=0, RescaleType="HU")
        at = {"PlanePositionSequence": group(ImagePositionPatient=position)} if frame < placed else {}
        frames.append(of(PixelValueTransformationSequence=scaled, **at))
    made.PerFrameFunctionalGroupsSequence = Sequence(frames)
    made.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("slices", [range(6), (0, 2, 4, 1, 3, 5), (3, 5, 4, 0, 1, 2)])
def test_frames_in_any_order_give_the_same_volume(tmp_path, slices):
    volume = load_volume(enhanced(tmp_path / "a.dcm", slices=slices))
    np.testing.assert_array_equal(volume.voxels, VOXELS)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-6)


def test_frames_stored_from_the_top_keep_voxels_and_world_together(tmp_path):
    volume = load_volume(enhanced(tmp_path / "a.dcm", slices=range(5, -1, -1)))
    np.testing.assert_array_equal(volume.voxels, VOXELS[:, :, ::-1])
    np.testing.assert_allclose(volume.affine[:3, 2:], [[0, -10], [0, -20], [-3, 45]], atol=1e-6)


def test_a_folder_with_one_file_of_many_frames_is_that_volume(tmp_path):
    enhanced(tmp_path / "a.dcm")
    np.testing.assert_array_equal(load_volume(tmp_path).voxels, VOXELS)
    enhanced(tmp_path / "b.dcm")
    with pytest.raises(VolumeError, match="several frames among others"):
        load_volume(tmp_path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"places": [0, 1, 2, 4, 5, 6]}, "not evenly spaced"),
        ({"places": [0, 0, 1, 1, 2, 2]}, r"a\.dcm: several DICOM frames"),
        ({"slopes": [1, 1, 1, 2, 2, 2]}, "scaled differently"),
        ({"placed": 4}, "4 of 6 DICOM frames"),
    ],
)
def test_frames_that_are_not_evenly_spaced_are_refused(tmp_path, changes, expected):
    with pytest.raises(VolumeError, match=expected):
        load_volume(enhanced(tmp_path / "a.dcm", **changes))


def test_frames_without_positions_are_read_with_a_note(tmp_path):
    stored = read_stored(enhanced(tmp_path / "a.dcm", placed=0))
    np.testing.assert_array_equal(stored.voxels, VOXELS)
    assert len(stored.notes) == 1
    assert not read_stored(enhanced(tmp_path / "b.dcm")).notes


def test_slices_that_are_scaled_each_for_itself_keep_their_values(tmp_path):
    slopes = [1, 2.5, 0.5, 3, 1, 0.25]  # as in PET; the first one alone would let ITK round to integers
    for k, slope in enumerate(slopes):
        made = picture(CTImageStorage, VOXELS[:, :, k].T)
        made.ImagePositionPatient = [*ORIGIN[:2], ORIGIN[2] + SPACING[2] * k]
        made.ImageOrientationPatient, made.PixelSpacing = [1, 0, 0, 0, 1, 0], [SPACING[1], SPACING[0]]
        made.RescaleSlope, made.RescaleIntercept, made.InstanceNumber = slope, 0, k + 1
        made.save_as(tmp_path / f"{k}.dcm", enforce_file_format=True)
    assert pydicom.dcmread(tmp_path / "1.dcm").RescaleSlope == 2.5
    volume = load_volume(tmp_path)
    np.testing.assert_array_equal(volume.voxels, VOXELS * np.float32(slopes))
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-6)
