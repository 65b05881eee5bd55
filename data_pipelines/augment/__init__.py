"""Random augmentation of volumes and slices: parameters are *drawn* from a seed, then *applied*.

The settings here need no TensorFlow; `augment.build` holds what runs in the tf.data graph.
"""

from voxlift.data_pipelines.augment.presets import PRESETS, light, none, strong
from voxlift.data_pipelines.augment.settings import Augment, changes_handedness

__all__ = ["PRESETS", "Augment", "changes_handedness", "light", "none", "strong"]
