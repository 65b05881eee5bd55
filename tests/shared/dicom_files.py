"""Small DICOM files, with and without preamble and functional groups, for tests that need files."""

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

MR, CAPTURE = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.7.3"
SHAPE = (5, 7, 4)
VOXELS = np.arange(140, dtype=np.uint16).reshape(SHAPE)


def of(**values):
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def picture(sop, pixels, **values):
    """A grey image, pixels [rows, columns] or [frames, rows, columns]."""
    made = of(
        SOPClassUID=sop, SOPInstanceUID=generate_uid(), StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.4"
    )
    made.Modality, made.PatientID, made.SamplesPerPixel = "MR", "x", 1
    made.PhotometricInterpretation, made.PixelRepresentation = "MONOCHROME2", 0
    made.Rows, made.Columns = pixels.shape[-2:]
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
    made.PixelData = np.ascontiguousarray(pixels, "<u2").tobytes()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def write_whole(path, data):
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)


def write_bare(path, data, *, implicit):
    """Write the data set alone: no preamble, no meta information."""
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, implicit
    write_dataset(out, data)
    path.write_bytes(out.getvalue())


def frames(sop, scale, *, root=None):
    """A file of many frames that states a scale in its functional groups."""
    data = picture(sop, np.moveaxis(VOXELS, 2, 0).swapaxes(1, 2), NumberOfFrames=SHAPE[2], **(root or {}))
    plane = of(ImageOrientationPatient=[1.0, 0, 0, 0, 1, 0])
    measures = of(PixelSpacing=[1.0, 1.0], SliceThickness=2.0)
    data.SharedFunctionalGroupsSequence = [
        of(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[plane])
    ]
    data.PerFrameFunctionalGroupsSequence = [
        of(
            PlanePositionSequence=[of(ImagePositionPatient=[0.0, 0.0, 2.0 * k])],
            PixelValueTransformationSequence=[
                of(RescaleSlope=scale[k][0], RescaleIntercept=scale[k][1], RescaleType="US")
            ],
        )
        for k in range(SHAPE[2])
    ]
    return data
