"""Rules that users register for layers of their own."""

from typing import Any

from voxlift.models.lifting.kinds import Layer
from voxlift.models.lifting.rules import find_rule
from voxlift.models.lifting.rules.answers import keep
from voxlift.models.lifting.rules.base import LiftRule

_USER_RULES: dict[Any, LiftRule] = {}


def register_lift_rule(layer_class: type, rule: LiftRule | None = None) -> None:
    """Set the rule by which layers of one class are lifted; it goes before the built-in one.

    Args:
        layer_class: Class of the 2D layer, exactly; subclasses need a rule of their own.
        rule: Function from a `LayerCall` to a `Lifted`. None keeps the layer as it is, right where it treats
            every pixel alike and takes tensors of any rank.
    """
    _USER_RULES[layer_class] = rule or keep


def unregister_lift_rule(layer_class: type) -> None:
    """Forget the rule that was registered for a class."""
    _USER_RULES.pop(layer_class, None)


def rule_for(operation: Layer) -> LiftRule | None:
    """Return the rule for a layer or raw operation: the user's, else the built-in one, else None."""
    return _USER_RULES.get(type(operation)) or find_rule(operation)
