"""Lift a 2D Keras network to 3D, with its weights, and prove it."""

from models.lifting.errors import LiftError
from models.lifting.plan import LiftPlan, plan_lift, to_3d
from models.lifting.registry import register_lift_rule, unregister_lift_rule

__all__ = ["LiftError", "LiftPlan", "plan_lift", "register_lift_rule", "to_3d", "unregister_lift_rule"]
