"""Image files in: one door, the reader chosen by content."""

from voxlift.data_pipelines.readers.load import load_volume, read_stored

__all__ = ["load_volume", "read_stored"]
