"""2D baselines and the lift to 3D, in pure Keras 3."""

from voxlift.models.lifting import LiftError, plan_lift, register_lift_rule, to_3d

__all__ = ["LiftError", "plan_lift", "register_lift_rule", "to_3d"]
