"""Tables of subjects and labels: read, checked, split by subject, searched for leaks."""

from voxlift.data_pipelines.errors import ManifestError

__all__ = ["ManifestError"]
