"""The preprocessing settings under their public name; see `preprocess.settings`."""

from voxlift.data_pipelines.preprocess.settings import PRESETS, Preprocess, preset

__all__ = ["PRESETS", "Preprocess", "preset"]
