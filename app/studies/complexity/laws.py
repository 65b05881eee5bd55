"""How each cost of each model grows with the volume."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from voxlift.app.studies.complexity.costs import Cost
from voxlift.app.studies.growth import PowerLaw, fit_power_law

# Attribute of Cost -> what it is called, and its unit.
QUANTITIES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "flops": ("Operations of a forward pass", "FLOP"),
        "activation_bytes": ("Activation memory", "B"),
        "train_seconds": ("Training time per volume", "s"),
        "infer_seconds": ("Inference time per volume", "s"),
        "parameters": ("Parameters", ""),
    }
)


def costs_by_model(costs: Sequence[Cost]) -> dict[str, list[Cost]]:
    """Each model's costs, smallest volume first."""
    names = dict.fromkeys(cost.model for cost in costs)
    return {
        name: sorted((cost for cost in costs if cost.model == name), key=lambda cost: cost.voxels)
        for name in names
    }


def fit_laws(costs: Sequence[Cost], quantity: str) -> dict[str, PowerLaw | None]:
    """The power law of a quantity over the voxels, for every model."""
    return {
        name: fit_power_law(
            [cost.voxels for cost in of_model], [float(getattr(cost, quantity)) for cost in of_model]
        )
        for name, of_model in costs_by_model(costs).items()
    }


def ratio_to(costs: Sequence[Cost], baseline: str, quantity: str) -> dict[tuple[str, int], float]:
    """A quantity of (model, voxels) divided by the baseline's on a volume of the same size."""
    base = {cost.voxels: float(getattr(cost, quantity)) for cost in costs if cost.model == baseline}
    return {
        (cost.model, cost.voxels): float(getattr(cost, quantity)) / base[cost.voxels]
        for cost in costs
        if base.get(cost.voxels)
    }


def say_exponent(law: PowerLaw | None) -> str:
    """An exponent with its interval.

    >>> say_exponent(PowerLaw(1.02, 0.95, 1.09, 1.0))
    '1.02 [0.95, 1.09]'
    """
    if law is None:
        return "not fitted"
    bounds = "" if math.isnan(law.low) else f" [{law.low:.2f}, {law.high:.2f}]"
    return f"{law.exponent:.2f}{bounds}".replace("-", "\N{MINUS SIGN}")
