"""Read medical images: NIfTI, MGH, NRRD, MetaImage and DICOM, recognised by content."""

from voxlift.data_pipelines.readers.load import load_volume, read_stored

__all__ = ["load_volume", "read_stored"]
