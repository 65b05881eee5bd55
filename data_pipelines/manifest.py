"""The documented import path of the manifest's public names; see `tables.manifest`."""

from voxlift.data_pipelines.tables.manifest import TableOptions, load_manifest

__all__ = ["TableOptions", "load_manifest"]
