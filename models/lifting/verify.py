"""The proof of a lift: the 3D network on one slice repeated along depth, against 2D on that slice."""

import time
from dataclasses import dataclass

import numpy as np

from voxlift.models.lifting.build import build_made
from voxlift.models.lifting.collapse import collapse_difference, largest
from voxlift.models.lifting.compare import Comparison, Made, Reference, compare_networks, compute_reference
from voxlift.models.lifting.errors import LiftError
from voxlift.models.lifting.inflate import Array
from voxlift.models.lifting.plan import LiftPlan
from voxlift.models.lifting.probes import probe_images, settling_images, size_of, with_depth
from voxlift.models.lifting.proof import NOT_PROVED, LiftProof
from voxlift.models.lifting.settle import settle_weights

TOLERANCE = 1e-4
PRECISIONS = ("float32", "float64")


@dataclass(frozen=True)
class _Case:
    """All that a proof needs, whatever the precision."""

    plan: LiftPlan
    centre: LiftPlan
    built: Made
    images: list[Array]
    size: tuple[int, int]
    scheme_difference: float


def verify_lift(
    plan: LiftPlan,
    *,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    settle: bool = False,
    precision: str | None = None,
) -> LiftProof:
    """Return the proof of a lift.

    The plan is built once more with `centre` weights, fed with random slices repeated along depth, and
    compared with the 2D network, layer by layer and at its outputs: at the logits, since a softmax that is
    sure of itself hides what came before it. Then the chosen scheme is checked on its own terms. A new
    head is left out of it; with other filters or another size, the 2D side is the slicewise lift of a single
    slice, which is the changed 2D network.

    Args:
        plan: What to prove.
        seed: Of the random slices.
        tolerance: Up to where a relative difference counts as rounding.
        settle: Give the 2D network sane random weights for the time of the proof, as one without trained
            weights needs; see `models.lifting.settle`.
        precision: "float32", "float64", or None for float32 first and float64 where that does not settle it:
            a deep network can amplify float32's rounding above the tolerance, and a wrong lift stays wrong.
    """
    begin = time.perf_counter()
    weights = plan.model_2d.get_weights() if settle else None
    try:
        if settle:
            settle_network(plan, seed=seed)
        case = _prepare(plan, seed)
        for choice in PRECISIONS if precision is None else (precision,):
            reference = compute_reference(case.centre, case.images, case.size, precision=choice)
            comparison = compare_networks(case.centre, case.built, case.images, reference, precision=choice)
            seconds = time.perf_counter() - begin
            proof = _judge(
                case, comparison, reference, precision=choice, tolerance=tolerance, seconds=seconds
            )
            if proof.verdict != NOT_PROVED:
                break
    finally:
        if weights is not None:
            plan.model_2d.set_weights(weights)
    return proof


def settle_network(plan: LiftPlan, *, seed: int = 0) -> None:
    """Give a plan's 2D network sane random weights, on the images of a proof; its own are lost.

    Args:
        plan: A plan of the network.
        seed: Of the weights and images.
    """
    settle_weights(plan.model_2d, settling_images(plan, seed), seed=seed)


def _prepare(plan: LiftPlan, seed: int) -> _Case:
    size = size_of(plan)
    centre = with_depth(_with_logits(plan.again(init="centre", classes=None)), size)
    built = build_made(centre.graph, is_grey=centre.is_grey)
    scheme_difference = 0.0
    if plan.settings["init"] != "random":
        is_same = plan.settings["init"] == "centre" and plan.settings["classes"] is None
        made = built[1] if is_same else build_made(plan.graph)[1]
        scheme_difference = collapse_difference(centre if is_same else plan, made)
    return _Case(plan, centre, built, probe_images(plan, size, seed), size, scheme_difference)


def _with_logits(plan: LiftPlan) -> LiftPlan:
    try:
        return plan.again(logits=True)
    except LiftError:  # what it gives at the end is read elsewhere too
        return plan


def _judge(
    case: _Case,
    comparison: Comparison,
    reference: Reference,
    *,
    precision: str,
    tolerance: float,
    seconds: float,
) -> LiftProof:
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
        seconds=seconds,
    )


def _response(outputs: list[Array]) -> float | None:
    """Return by how much outputs differ between the first two slices; None where that cannot be told."""
    if any(len(output) < 2 or not np.isfinite(output).all() for output in outputs):
        return None
    scales = [float(np.abs(output[:2]).max()) or 1.0 for output in outputs]
    pairs = zip(outputs, scales, strict=True)
    return max(float(np.abs(output[0] - output[1]).max()) / scale for output, scale in pairs)
