"""Check a lifted network on repeated slices before it is trained, as `voxlift-lift` does."""

from __future__ import annotations

import logging
import math
from contextlib import nullcontext
from typing import TYPE_CHECKING

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.runtime.precision import rounding_tolerance
from voxlift.app.runtime.setup import unchanged_randomness
from voxlift.app.training.pretrained import has_trained_weights
from voxlift.app.training.strategy.hosts.data_parallel import single_process

if TYPE_CHECKING:
    from voxlift.models.lifting import LiftPlan, LiftProof

QUICK_VOXELS = 2**16  # up to which a check of a deep network takes seconds
log = logging.getLogger("voxlift")


def check_lift(plan: LiftPlan | None, settings: TrainSettings) -> None:
    """Pass when the lifted network gives on repeated slices what the 2D network gives on a slice.

    Networks and random draws stay unchanged. Random 3D weights promise nothing, so there is no check.

    Args:
        plan: Of the lift; None for a network that is not lifted.
        settings: Of the training.

    Raises:
        SettingsError: The networks differ in a layer that the plan calls exact.
    """
    if plan is None or not settings.preflight.lift or plan.settings["init"] == "random":
        return
    from voxlift.models.lifting import verify_lift

    # A network that is trained on slices first has no trained weights yet.
    is_random = settings.model.pretrain or not has_trained_weights(settings.model)
    tolerance = rounding_tolerance(plan.model_2d)
    with unchanged_randomness(), single_process() if settings.strategy == "hosts" else nullcontext():
        proof = verify_lift(shorten_depth(plan), random_weights=is_random, tolerance=tolerance)
    if proof.is_refuted:
        raise SettingsError(_describe_refuted(proof))
    log.info("%s", describe_proof(proof))


def shorten_depth(plan: LiftPlan) -> LiftPlan:
    """Return the plan for as few slices as it needs where the whole volume would take long to compute."""
    from voxlift.models.lifting import LiftError

    volume = next(spec.shape[1:4] for spec in plan.graph.inputs if spec.is_volume)
    if math.prod(side or 0 for side in volume) <= QUICK_VOXELS:
        return plan
    shape = plan.settings["input_shape"]
    try:
        return plan.replan(depth=None, input_shape=None if shape is None else (None, *shape[1:]))
    except LiftError:
        return plan  # a weight for every position needs the whole volume


def describe_proof(proof: LiftProof) -> str:
    """Return one line about a lift that can be trained."""
    line = (
        f"Lift of {proof.network} on repeated slices: {proof.verdict}, difference {proof.difference:.1e} "
        f"({proof.seconds:.1f} s)"
    )
    if proof.is_proved or not proof.inexact:
        return line
    layer, reason = next(iter(proof.inexact.items()))
    more = f"; and {len(proof.inexact) - 1} more layers" if len(proof.inexact) > 1 else ""
    return f"{line}; {layer}: {reason}{more}"


def _describe_refuted(proof: LiftProof) -> str:
    difference = max(proof.promised_difference, proof.scheme_difference, proof.difference)
    where = f" The first layer that differs is {proof.worst_layer}." if proof.worst_layer else ""
    return (
        f"{proof.network}: expected the lifted network to agree with the 2D one on repeated slices to "
        f"{proof.tolerance:g}; it differs by {difference:.1e}.{where} With preflight.lift=false it is "
        "trained without this check."
    )
