"""Prepared volumes on disk: written once, read by every epoch."""

from voxlift.data_pipelines.cache.fill import CachedVolumes, fill_cache

__all__ = ["CachedVolumes", "fill_cache"]
