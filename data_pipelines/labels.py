"""The documented import path of the label index; see `tables.reader`."""

from voxlift.data_pipelines.tables.reader import index_labels

__all__ = ["index_labels"]
