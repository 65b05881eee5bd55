"""Explanation maps of a decision: Grad-CAM and occlusion, for slices, volumes and the slice model."""

from voxlift.models.explain.grad_cam import grad_cam
from voxlift.models.explain.occlusion import occlusion_map
from voxlift.models.explain.target import find_layer

__all__ = ["find_layer", "grad_cam", "occlusion_map"]
