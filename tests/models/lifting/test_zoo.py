"""Every network of keras.applications lifts and proves itself."""

import keras
import pytest

from models.lifting import application_names, load_network, plan_lift, verify_lift

FAST = ("MobileNet", "MobileNetV3Small")
FLATTENING = ("VGG16", "VGG19")
SIDES = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}


def _prove(name, *, include_top=True, policy="preserve", depth=5, precision=None):
    keras.backend.clear_session()
    side = SIDES.get(name, 64)
    network = load_network(
        name, input_shape=(side, side, 3), include_top=include_top, classes=10 if include_top else None
    )
    plan = plan_lift(network, depth=depth, depth_policy=policy)
    return verify_lift(plan, settle=True, precision=precision)


def test_there_are_the_forty_networks_that_the_table_names():
    assert len(application_names()) >= 40


@pytest.mark.parametrize("name", FAST)
def test_small_networks_prove_themselves(name):
    assert _prove(name).is_proved


@pytest.mark.slow
@pytest.mark.parametrize("include_top", [True, False])
@pytest.mark.parametrize("name", application_names())
def test_every_network_proves_itself(name, include_top):
    proof = _prove(name, include_top=include_top, precision="float64")
    assert not proof.inexact
    assert proof.is_proved
    # Flatten's weights, divided by the slices, are rounded to float32; nothing else is above 1e-10.
    assert proof.promised_difference < (1e-6 if name in FLATTENING and include_top else 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet50", "ResNet50V2", "DenseNet121", "EfficientNetB0", "NASNetMobile"])
def test_isotropic_lifts_are_exact_where_the_plan_says_so(name):
    proof = _prove(name, policy="isotropic", depth=33, precision="float64")
    assert proof.verdict == ("not exact by plan" if proof.inexact else "proved")
    assert proof.promised_difference < 1e-10
