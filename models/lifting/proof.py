"""What a lift proved, in figures and in words."""

from dataclasses import dataclass, fields
from typing import Any

PROVED = "proved"
NOT_EXACT_BY_PLAN = "not exact by plan"
NOT_PROVED = "NOT PROVED"
NO_SIGNAL = "no signal"
SHOWN = 10


@dataclass(frozen=True)
class LiftProof:
    """What a lift proved.

    Args:
        network: Name of the 2D network.
        policy: The depth policy asked for.
        init: The initialisation asked for.
        precision: In which both networks were computed, "float32" or "float64".
        difference: Largest relative difference of the centre lift's outputs from the 2D network's, on
            repeated random slices.
        promised_difference: The same over all layers that the plan calls exact, each behind a layer that is
            named in `inexact` being fed with what 2D has there.
        worst_layer: The first layer whose promised difference is above the tolerance; empty if none is.
        scheme_difference: Largest relative deviation of the chosen scheme's kernels, their taps added up (or
            their views as they are), from the 2D kernels.
        tolerance: Up to where a difference counts as rounding.
        inexact: Layers that can make a difference, with the reason.
        layers: How many calls of layers were compared.
        layer_count: How many there are; the inexact ones make the difference.
        response: By how much the 2D outputs differ between two slices, relative; None where only one could
            be computed. A network that answers every slice alike proves nothing.
        seconds: Time that the proof took.
    """

    network: str
    policy: str
    init: str
    precision: str
    difference: float
    promised_difference: float
    worst_layer: str
    scheme_difference: float
    tolerance: float
    inexact: dict[str, str]
    layers: int
    layer_count: int
    response: float | None
    seconds: float

    @property
    def verdict(self) -> str:
        """What became of the plan's promise.

        Returns:
            "proved": the 3D network equals the 2D one. "not exact by plan": it does so up to the layers that
            the plan names, and differs behind them. "NOT PROVED": it differs where the plan calls it exact.
            "no signal": no difference, but two different slices make none either.
        """
        if not max(self.promised_difference, self.scheme_difference) <= self.tolerance:
            return NOT_PROVED
        if self.response is not None and self.response <= 10 * self.tolerance:
            return NO_SIGNAL
        if self.difference <= self.tolerance:
            return PROVED
        return NOT_EXACT_BY_PLAN if self.inexact else NOT_PROVED

    @property
    def is_proved(self) -> bool:
        """Whether the 3D network equals the 2D one on a repeated slice."""
        return self.verdict == PROVED

    @property
    def is_refuted(self) -> bool:
        """Whether the 3D network differs from the 2D one where the plan calls it exact."""
        return self.verdict == NOT_PROVED

    def row(self) -> dict[str, Any]:
        """Return the proof as one row of plain values."""
        return {each.name: getattr(self, each.name) for each in fields(self)} | {"verdict": self.verdict}

    def __str__(self) -> str:
        where = f"{self.network}, {self.policy}, on a repeated slice in {self.precision}"
        lines = [f"{where}: {self.verdict}.", f"  largest relative difference from 2D: {self.difference:.1e}"]
        if self.response is not None:
            lines[-1] += f"; between two slices: {self.response:.1e}"
        exact = f"in the {self.layers} layers (of {self.layer_count}) that the plan calls exact"
        lines.append(f"  {exact}: {self.promised_difference:.1e}")
        if self.verdict == NO_SIGNAL:
            lines.append(
                "  two random slices give this network nearly the same answer (they count as different from "
                f"{10 * self.tolerance:.0e} on):"
            )
            lines.append("  agreement alone proves little then, and nothing speaks against the plan")
        if self.worst_layer:
            lines.append(f"  first layer above {self.tolerance:.0e} against the plan: {self.worst_layer}")
        if self.init != "random":
            lines.append(f"  init={self.init}: taps give back the 2D kernels to {self.scheme_difference:.1e}")
        lines += [f"  {layer}: {reason}" for layer, reason in list(self.inexact.items())[:SHOWN]]
        if len(self.inexact) > SHOWN:
            lines.append(f"  and {len(self.inexact) - SHOWN} layers more.")
        return "\n".join(lines)
