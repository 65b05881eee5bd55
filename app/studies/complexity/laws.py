"""Fit power laws to what a model costs over the size of the volume."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy import stats

# Attribute of ModelCost -> its label and its unit.
QUANTITIES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "flops": ("Operations of a forward pass", "FLOP"),
        "activation_bytes": ("Activation memory", "B"),
        "train_seconds": ("Training time per volume", "s"),
        "infer_seconds": ("Inference time per volume", "s"),
        "parameters": ("Parameters", ""),
    }
)


@dataclass(frozen=True)
class ModelCost:
    """The cost of one volume of one size for one model.

    Attributes:
        model: Name of the group `model`.
        shape: Depth, height, width, channels.
        parameters: Parameters of the model.
        flops: Operations of one forward pass.
        activation_bytes: Outputs of all layers in one forward pass.
        train_seconds: Time of one training step per volume (all of its slices, for a slice model).
        infer_seconds: Time to score one volume.
        peak_memory_bytes: Peak memory of the measuring process, or of the GPU.
        load_per_core: Load of the machine before the measurement.
    """

    model: str
    shape: tuple[int, int, int, int]
    parameters: int
    flops: int
    activation_bytes: int
    train_seconds: float
    infer_seconds: float
    peak_memory_bytes: int
    load_per_core: float

    @property
    def voxels(self) -> int:
        """Voxels of the volume, channels not counted."""
        depth, height, width, _ = self.shape
        return depth * height * width


@dataclass(frozen=True)
class PowerLaw:
    """`cost = factor * size ** exponent`, fitted by least squares of the logarithms.

    Attributes:
        exponent: Slope on logarithmic axes.
        low: Lower end of the exponent's 95 % interval; nan where two points leave no degree of freedom.
        high: Upper end.
        factor: Cost at size 1.
    """

    exponent: float
    low: float
    high: float
    factor: float

    def predict(self, size: float) -> float:
        """Return the fitted cost at a size."""
        return float(self.factor * size**self.exponent)


def fit_power_law(sizes: Sequence[float], costs: Sequence[float], *, level: float = 0.95) -> PowerLaw | None:
    """Return the power law through (size, cost), None where fewer than two sizes or a cost of 0 allow none.

    The interval is that of Student's t with n - 2 degrees of freedom. It is valid if the points scatter
    around one law, and does not extend to sizes beyond those fitted.

    >>> law = fit_power_law([1, 2, 4], [3, 12, 48])
    >>> round(law.exponent, 6), round(law.factor, 6)
    (2.0, 3.0)

    Args:
        sizes: Such as voxels, above 0.
        costs: Of each size.
        level: Coverage of the interval of the exponent.
    """
    pairs = list(zip(sizes, costs, strict=True))
    if len({size for size, _ in pairs}) < 2 or any(not (size > 0 and cost > 0) for size, cost in pairs):
        return None
    x, y = (np.log(np.asarray(values, np.float64)) for values in (sizes, costs))
    line = stats.linregress(x, y)
    slope, freedom = float(line.slope), len(x) - 2
    error = float(line.stderr) if np.ptp(y) else 0.0  # scipy gives nan for a constant cost
    half_width = float(stats.t.ppf((1 + level) / 2, freedom)) * error if freedom > 0 else math.nan
    return PowerLaw(slope, slope - half_width, slope + half_width, math.exp(line.intercept))


def group_costs(costs: Sequence[ModelCost]) -> dict[str, list[ModelCost]]:
    """Return each model's costs, smallest volume first."""
    names = dict.fromkeys(cost.model for cost in costs)
    return {
        name: sorted((cost for cost in costs if cost.model == name), key=lambda cost: cost.voxels)
        for name in names
    }


def fit_laws(costs: Sequence[ModelCost], quantity: str) -> dict[str, PowerLaw | None]:
    """Return the power law of a quantity over the voxels for every model."""
    return {
        name: fit_power_law(
            [cost.voxels for cost in of_model], [float(getattr(cost, quantity)) for cost in of_model]
        )
        for name, of_model in group_costs(costs).items()
    }


def compute_ratios(costs: Sequence[ModelCost], baseline: str, quantity: str) -> dict[tuple[str, int], float]:
    """Return a quantity by (model, voxels), divided by the baseline's on a volume of the same size."""
    base = {cost.voxels: float(getattr(cost, quantity)) for cost in costs if cost.model == baseline}
    return {
        (cost.model, cost.voxels): float(getattr(cost, quantity)) / base[cost.voxels]
        for cost in costs
        if base.get(cost.voxels)
    }


def format_exponent(law: PowerLaw | None) -> str:
    """Return an exponent with its interval as text.

    >>> format_exponent(PowerLaw(1.02, 0.95, 1.09, 1.0))
    '1.02 [0.95, 1.09]'
    """
    if law is None:
        return "not fitted"
    bounds = "" if math.isnan(law.low) else f" [{law.low:.2f}, {law.high:.2f}]"
    return f"{law.exponent:.2f}{bounds}".replace("-", "\N{MINUS SIGN}")
