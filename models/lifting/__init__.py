"""Lift a 2D Keras network to 3D, with its weights, and prove it."""

from voxlift.models.lifting.errors import LiftError
from voxlift.models.lifting.plan import LiftPlan, plan_lift, to_3d
from voxlift.models.lifting.proof import LiftProof
from voxlift.models.lifting.registry import register_lift_rule, unregister_lift_rule
from voxlift.models.lifting.rules.base import LayerCall, Lifted
from voxlift.models.lifting.sources import load_network
from voxlift.models.lifting.verify import settle_network, verify_lift

__all__ = [
    "LayerCall",
    "LiftError",
    "LiftPlan",
    "LiftProof",
    "Lifted",
    "load_network",
    "plan_lift",
    "register_lift_rule",
    "settle_network",
    "to_3d",
    "unregister_lift_rule",
    "verify_lift",
]
