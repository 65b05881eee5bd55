"""A lifted network is checked on repeated slices before it is trained."""

import random

import keras
import pytest

from commands import call_command, compose_command
from tiny import TINY, places_in
from voxlift.app.cli.train import read_settings
from voxlift.app.config import SettingsError
from voxlift.app.training.networks import InputSpec
from voxlift.app.training.stages import QUICK_VOXELS, build_stages, shorten_depth
from voxlift.models.baselines import build_baseline
from voxlift.models.lifting import keep_layer, plan_lift, register_lift_rule, unregister_lift_rule

SHAPE = (8, 12, 16, 1)  # [D, H, W, C]


@keras.saving.register_keras_serializable(package="test_lift_proof")
class TimesRank(keras.layers.Layer):
    """A layer that gives other results in 3D, which its rule does not know."""

    def call(self, values):
        return values * len(values.shape)


@pytest.fixture
def wrong_file(tmp_path):
    """A 2D network in a file whose lift is wrong."""
    register_lift_rule(TimesRank, keep_layer)
    images = keras.Input(SHAPE[1:])
    x = TimesRank(name="times_rank")(keras.layers.Conv2D(3, 3, name="first")(images))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, name="second")(x))
    keras.Model(images, keras.layers.Dense(2)(x)).save(tmp_path / "wrong.keras")
    yield tmp_path / "wrong.keras"
    unregister_lift_rule(TimesRank)


def plan(*overrides):
    settings = read_settings(compose_command("train", *TINY, *overrides))
    return build_stages(settings, InputSpec(SHAPE, ("a", "b")))


@pytest.mark.parametrize("init", ["centre", "mean"])
def test_a_wrong_lift_is_refused_with_its_first_layer(init, wrong_file):
    volume = ("model=volume3d", f"model.baseline={wrong_file}", f"model.init={init}")
    with pytest.raises(SettingsError, match="times_rank"):
        plan(*volume)
    assert plan(*volume, "preflight.lift=false")


def test_the_command_refuses_a_wrong_lift_before_images_are_read(wrong_file, tmp_path, capsys):
    given = (f"model.baseline={wrong_file}", "model.init=centre", *places_in(tmp_path, "run"))
    assert call_command("train", *TINY, "model=volume3d", *given) == 2
    assert "times_rank" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "verdict"),
    [
        (("model=volume3d",), ""),  # random weights promise nothing
        (("model=slice2d",), ""),
        (("model=inflated",), "proved"),
        (("model=volume3d", "model.init=mean"), "proved"),
    ],
)
def test_the_log_says_what_was_proved_and_no_draw_or_weight_changes(overrides, verdict, caplog):
    draws = []
    for lift in ("true", "false"):
        caplog.clear()
        keras.utils.set_random_seed(0)
        with caplog.at_level("INFO", logger="voxlift"):
            stages = plan(*overrides, f"preflight.lift={lift}")
        weights = stages[0].take_networks().trained.get_weights()
        draws.append((random.getstate(), [weight.sum() for weight in weights]))
        lines = [line for line in caplog.messages if "repeated slices" in line]
        assert len(lines) == (1 if verdict and lift == "true" else 0)
        assert all(verdict in line for line in lines)
    assert draws[0] == draws[1]


def test_a_plan_that_is_inexact_by_its_own_account_is_logged_and_trained(tmp_path, caplog):
    images = keras.Input(SHAPE[1:])
    x = keras.layers.Conv2D(3, 3, name="first")(images)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ZeroPadding2D(1, name="pad")(x))
    network = keras.Model(images, keras.layers.Dense(2)(x))
    assert list(plan_lift(network, depth=SHAPE[0]).inexact) == ["pad"]
    network.save(tmp_path / "inexact.keras")
    with caplog.at_level("INFO", logger="voxlift"):
        assert plan("model=volume3d", f"model.baseline={tmp_path}/inexact.keras", "model.init=centre")
    assert "not exact by plan" in caplog.text
    assert "pad:" in caplog.text


def test_a_large_volume_is_checked_on_fewer_slices_unless_its_head_needs_all():
    large = (64, 32, 40, 1)
    assert QUICK_VOXELS < 64 * 32 * 40
    for head, depth in (("pool", None), ("flatten", 64)):
        network = build_baseline("cnn", input_shape=large[1:], classes=2, filters=(2, 3, 4), head=head)
        shortened = shorten_depth(plan_lift(network, depth=64))
        assert shortened.settings["depth"] == depth
