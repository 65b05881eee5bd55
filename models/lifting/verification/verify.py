"""Prove a lift: the 3D network on a slice repeated along depth, against the 2D network on that slice."""

import time
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from voxlift.models.lifting.build import BuiltNetwork, build_network
from voxlift.models.lifting.errors import LiftError
from voxlift.models.lifting.plan import LiftPlan
from voxlift.models.lifting.types import Array
from voxlift.models.lifting.verification.compare import (
    compare_kernels,
    compare_networks,
    compute_reference,
    largest,
)
from voxlift.models.lifting.verification.random_data import (
    choose_depth,
    choose_size,
    comparison_images,
    set_random_weights,
    statistics_images,
)

TOLERANCE = 1e-4
PRECISIONS = ("float32", "float64")
SIGNAL = 10  # outputs for two slices count as different from this multiple of the tolerance on
SHOWN = 10  # inexact layers in the printed proof

PROVED = "proved"
NOT_EXACT_BY_PLAN = "not exact by plan"
NOT_PROVED = "NOT PROVED"
NO_SIGNAL = "no signal"


@dataclass(frozen=True)
class LiftProof:
    """The result of `verify_lift`.

    Args:
        network: Name of the 2D network.
        policy: The requested depth policy.
        init: The requested initialisation.
        precision: In which both networks were computed, "float32" or "float64".
        difference: Largest relative difference between the outputs of the lift with `centre` weights and of
            the 2D network, on random slices repeated along depth.
        promised_difference: The same over all layers that the plan calls exact; the output of an inexact
            layer is replaced by its 2D output before the next layers are compared.
        worst_layer: The first layer whose promised difference exceeds the tolerance; empty if there is none.
        scheme_difference: Largest relative difference between the kernels of the chosen scheme, summed over
            their taps (or as they are under "acs"), and the 2D kernels.
        tolerance: Largest difference that counts as rounding.
        inexact: Layers that can cause a difference, with the reason.
        layers: Number of layer calls that were compared.
        layer_count: Number of all layer calls; the inexact ones are not compared.
        response: Relative difference between the 2D outputs for two slices; None if only one could be
            computed. A network that gives the same output for every slice proves nothing.
        seconds: Duration of the proof.
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
        """Verdict on the plan.

        Returns:
            "proved": the 3D network equals the 2D network. "not exact by plan": it equals it up to the layers
            that the plan names as inexact. "NOT PROVED": it differs in a layer that the plan calls exact.
            "no signal": there is no difference, but neither is there one between two different slices.
        """
        if not max(self.promised_difference, self.scheme_difference) <= self.tolerance:
            return NOT_PROVED
        if self.response is not None and self.response <= SIGNAL * self.tolerance:
            return NO_SIGNAL
        if self.difference <= self.tolerance:
            return PROVED
        return NOT_EXACT_BY_PLAN if self.inexact else NOT_PROVED

    @property
    def is_proved(self) -> bool:
        """Whether the 3D network equals the 2D network on a slice repeated along depth."""
        return self.verdict == PROVED

    @property
    def is_refuted(self) -> bool:
        """Whether the 3D network differs from the 2D network in a layer that the plan calls exact."""
        return self.verdict == NOT_PROVED

    def row(self) -> dict[str, Any]:
        """Return the proof as one row of plain values."""
        return {each.name: getattr(self, each.name) for each in fields(self)} | {"verdict": self.verdict}

    def __str__(self) -> str:
        title = f"{self.network}, {self.policy}, on a slice repeated along depth, in {self.precision}"
        lines = [f"{title}: {self.verdict}.", f"  largest relative difference from 2D: {self.difference:.1e}"]
        if self.response is not None:
            lines[-1] += f"; between two slices: {self.response:.1e}"
        exact = f"in the {self.layers} layers (of {self.layer_count}) that the plan calls exact"
        lines.append(f"  {exact}: {self.promised_difference:.1e}")
        if self.verdict == NO_SIGNAL:
            threshold = f"they count as different from {SIGNAL * self.tolerance:.0e} on"
            lines += [
                f"  the outputs for two random slices are nearly equal ({threshold}):",
                "  the agreement proves little, but there is no evidence against the plan",
            ]
        if self.worst_layer:
            lines.append(
                f"  first exact layer with a difference above {self.tolerance:.0e}: {self.worst_layer}"
            )
        if self.init != "random":
            lines.append(
                f"  init={self.init}: the taps sum to the 2D kernels within {self.scheme_difference:.1e}"
            )
        lines += [f"  {layer}: {reason}" for layer, reason in list(self.inexact.items())[:SHOWN]]
        if len(self.inexact) > SHOWN:
            lines.append(f"  and {len(self.inexact) - SHOWN} more layers")
        return "\n".join(lines)


def verify_lift(
    plan: LiftPlan,
    *,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    random_weights: bool = False,
    precision: str | None = None,
) -> LiftProof:
    """Return the proof of a lift.

    The plan is built once more with `centre` weights and computed on random slices repeated along depth. Each
    layer and the outputs are compared with the 2D network. The outputs are logits, since a saturated softmax
    hides differences before it. Then the kernels of the chosen scheme are compared with the 2D kernels. A new
    head is not compared. With other filters or another size, the 2D side is the slicewise lift of a single
    slice, which is the changed 2D network.

    Args:
        plan: The plan to prove.
        seed: Seed of the random slices.
        tolerance: Largest relative difference that counts as rounding.
        random_weights: Whether to give the 2D network suitable random weights for the duration of the proof,
            as a network without trained weights needs; see `random_data.set_random_weights`.
        precision: "float32", "float64", or None for float32 first and float64 if float32 does not prove the
            lift: a deep network can amplify the rounding of float32 above the tolerance, and a wrong lift
            stays wrong.
    """
    begin = time.perf_counter()
    weights = plan.model_2d.get_weights() if random_weights else None
    try:
        if random_weights:
            randomise_network(plan, seed=seed)
        case = _prepare(plan, seed)
        for choice in PRECISIONS if precision is None else (precision,):
            proof = _prove(case, precision=choice, tolerance=tolerance, begin=begin)
            if proof.verdict != NOT_PROVED:
                break
    finally:
        if weights is not None:
            plan.model_2d.set_weights(weights)
    return proof


def randomise_network(plan: LiftPlan, *, seed: int = 0) -> None:
    """Give the 2D network of a plan suitable random weights for a proof; its own weights are lost.

    Args:
        plan: A plan of the network.
        seed: Seed of the weights and images.
    """
    images = statistics_images(plan, seed)
    set_random_weights(plan.model_2d, images, seed=seed, unfolded=plan.graph.unfolded())


@dataclass(frozen=True)
class _Case:
    """The plans, networks and images of a proof, the same in every precision."""

    plan: LiftPlan
    centre: LiftPlan
    built: BuiltNetwork
    images: list[Array]
    size: tuple[int, int]
    scheme_difference: float


def _prepare(plan: LiftPlan, seed: int) -> _Case:
    size = choose_size(plan)
    centre = choose_depth(_with_logits(plan.replan(init="centre", classes=None)), size)
    built = build_network(centre.graph, is_grey=centre.is_grey)
    scheme_difference = 0.0
    if plan.settings["init"] != "random":
        is_same = plan.settings["init"] == "centre" and plan.settings["classes"] is None
        layers = built.layers if is_same else build_network(plan.graph).layers
        scheme_difference = compare_kernels(centre if is_same else plan, layers)
    return _Case(plan, centre, built, comparison_images(plan, size, seed), size, scheme_difference)


def _with_logits(plan: LiftPlan) -> LiftPlan:
    try:
        return plan.replan(logits=True)
    except LiftError:  # another layer reads the probabilities
        return plan


def _prove(case: _Case, *, precision: str, tolerance: float, begin: float) -> LiftProof:
    reference = compute_reference(case.centre, case.images, case.size, precision=precision)
    comparison = compare_networks(case.centre, case.built, case.images, reference, precision=precision)
    above = (name for name, difference in comparison.layers.items() if not difference <= tolerance)
    settings = case.plan.settings
    return LiftProof(
        network=case.plan.model_2d.name,
        policy=str(settings["depth_policy"]),
        init=settings["init"],
        precision=precision,
        difference=comparison.outputs,
        promised_difference=largest(comparison.layers.values()),
        worst_layer=next(above, ""),
        scheme_difference=case.scheme_difference,
        tolerance=tolerance,
        inexact=case.centre.inexact,
        layers=len(comparison.layers),
        layer_count=comparison.layer_count,
        response=_response(reference.outputs),
        seconds=time.perf_counter() - begin,
    )


def _response(outputs: list[Array]) -> float | None:
    """Return the relative difference between the outputs for two slices; None if it cannot be computed."""
    if any(len(output) < 2 or not np.isfinite(output).all() for output in outputs):
        return None
    scales = [float(np.abs(output[:2]).max()) or 1.0 for output in outputs]
    pairs = zip(outputs, scales, strict=True)
    return max(float(np.abs(output[0] - output[1]).max()) / scale for output, scale in pairs)
