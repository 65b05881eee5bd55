"""Shared by tests of the lift: a network around some layers, its proof, and the problems of a failed lift."""

import keras
import pytest

from voxlift.models.lifting import LiftError, plan_lift, verify_lift


def image_network(function, shape=(10, 12, 4)):
    """A network from an image of this shape to what the function makes of it."""
    image = keras.Input(shape, name="image")
    return keras.Model(image, function(image), name="network")


def prove(network, policy="isotropic", *, depth=8, tolerance=1e-6, **settings):
    """The lifted network, after a proof in float64 that no layer of it is inexact."""
    plan = plan_lift(network, depth=depth, depth_policy=policy, **settings)
    proof = verify_lift(plan, random_weights=True, precision="float64")
    assert not proof.inexact, str(proof)
    assert proof.is_proved, str(proof)
    assert max(proof.difference, proof.promised_difference) < tolerance, str(proof)
    assert proof.scheme_difference < 1e-6, str(proof)
    lifted = plan.build()
    planned = {row["shape_3d"] for row in plan.rows() if "/" not in row["layer"]}
    assert {tuple(tensor.shape) for tensor in lifted.outputs} <= planned
    return lifted


def lift_problems(network, **settings):
    """The problems of a network that cannot be lifted; each has a reason, and all stand in the message."""
    with pytest.raises(LiftError) as caught:
        plan_lift(network, **settings)
    assert all(problem.reason in str(caught.value) for problem in caught.value.problems)
    return caught.value.problems
