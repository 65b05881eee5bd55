"""Lift a 2D Keras network to 3D with its weights, and prove the lift.

A lift has three steps, and a module or package for each:

1. Plan: `plan.py` (`plan_lift`) walks the 2D graph with `planner.py` and decides every layer by its rule in
   `rules/`; `rules/base.py` explains how to write a rule and register it. `depth.py` determines sizes along
   depth, `edits/` changes filters, input channels and head on request, `report.py` prints the plan. Layers of
   other libraries need no rule if `rules/foreign.py` proves that they act on each position alone, or if
   `unfold.py` can list the layers that they hold.
2. Build: `build.py` (`LiftPlan.build`) creates the 3D layers and sets their weights, inflated by
   `inflate.py`.
3. Verify: `verification/` (`verify_lift`) compares the 3D network on a slice repeated along depth with the 2D
   network on that slice.
"""

from voxlift.models.lifting.depth import with_depth_kernel
from voxlift.models.lifting.errors import LiftError, UnsupportedError
from voxlift.models.lifting.load import load_network
from voxlift.models.lifting.plan import LiftPlan, plan_lift, to_3d
from voxlift.models.lifting.rules.base import (
    LayerCall,
    Lifted,
    keep_layer,
    register_lift_rule,
    unregister_lift_rule,
    weight_transfer,
)
from voxlift.models.lifting.types import TensorSpec
from voxlift.models.lifting.verification.verify import LiftProof, randomise_network, verify_lift

__all__ = [
    "LayerCall",
    "LiftError",
    "LiftPlan",
    "LiftProof",
    "Lifted",
    "TensorSpec",
    "UnsupportedError",
    "keep_layer",
    "load_network",
    "plan_lift",
    "randomise_network",
    "register_lift_rule",
    "to_3d",
    "unregister_lift_rule",
    "verify_lift",
    "weight_transfer",
    "with_depth_kernel",
]
