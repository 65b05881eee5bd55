"""Random variations of volumes and slices: each *draws* parameters from a seed, then *applies* them.

The settings are here and cost no import of TensorFlow; `data_pipelines.augment.build` holds what runs in
the graph.
"""

from voxlift.data_pipelines.augment.presets import PRESETS, light, none, strong
from voxlift.data_pipelines.augment.settings import Augment, changes_handedness

__all__ = ["PRESETS", "Augment", "changes_handedness", "light", "none", "strong"]
