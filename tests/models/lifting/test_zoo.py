"""Every network of keras.applications lifts and proves itself."""

import keras
import pytest

from voxlift.models.lifting import load_network, plan_lift, verify_lift
from voxlift.models.loading import application_names

FAST = {"MobileNet": False, "MobileNetV3Small": True}  # with its classifying head, or without
SIDES = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
VALID = ("InceptionV3", "InceptionResNetV2", "Xception")  # their pools need as many slices as rows
ISOTROPIC_DEPTH = 33


def _prove(name, policy, *, include_top):
    keras.backend.clear_session()
    side = SIDES.get(name, 32)
    network = load_network(
        name, input_shape=(side, side, 3), include_top=include_top, classes=10 if include_top else None
    )
    depth = 5 if policy == "preserve" else side if name in VALID else ISOTROPIC_DEPTH
    return verify_lift(
        plan_lift(network, depth=depth, depth_policy=policy), random_weights=True, precision="float64"
    )


def _check(proof, policy):
    # Flatten's weights, divided by the slices, are rounded to float32; nothing else is above 1e-8.
    assert proof.promised_difference < 1e-6
    assert proof.response > 1e-2
    assert proof.layers + len(proof.inexact) == proof.layer_count
    if policy == "preserve":
        assert not proof.inexact
    assert proof.verdict == ("not exact by plan" if proof.inexact else "proved")


def test_there_are_the_forty_networks_that_the_table_names():
    assert len(application_names()) >= 40


@pytest.mark.parametrize("policy", ["preserve", "isotropic"])
@pytest.mark.parametrize("name", FAST)
def test_small_networks_prove_themselves(name, policy):
    _check(_prove(name, policy, include_top=FAST[name]), policy)


@pytest.mark.slow
@pytest.mark.parametrize("include_top", [True, False])
@pytest.mark.parametrize("policy", ["preserve", "isotropic"])
@pytest.mark.parametrize("name", application_names())
def test_every_network_proves_itself(name, policy, include_top):
    _check(_prove(name, policy, include_top=include_top), policy)
