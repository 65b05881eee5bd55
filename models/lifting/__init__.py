"""Lift a 2D Keras network to 3D, with its weights, and prove it."""

from models.lifting.errors import LiftError
from models.lifting.plan import LiftPlan, plan_lift, to_3d
from models.lifting.proof import LiftProof
from models.lifting.registry import register_lift_rule, unregister_lift_rule
from models.lifting.rules.base import LayerCall, Lifted
from models.lifting.sources import load_network
from models.lifting.verify import settle_network, verify_lift

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
