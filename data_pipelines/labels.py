"""The documented import path of the label index; see `tables.values`."""

from voxlift.data_pipelines.tables.values import index_labels

__all__ = ["index_labels"]
