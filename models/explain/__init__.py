"""Where a network looks: Grad-CAM and occlusion, for slices, volumes and the wrapped slice model."""

from voxlift.models.explain.grad_cam import grad_cam
from voxlift.models.explain.occlusion import occlusion_map
from voxlift.models.explain.places import find_layer

__all__ = ["find_layer", "grad_cam", "occlusion_map"]
