"""`voxlift-lift`: what it prints, what it writes, what it refuses."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from commands import run_python
from voxlift.app.cli.lift import find_problems, lift
from voxlift.app.config import LiftSettings, ModelSettings, TrainSettings
from voxlift.app.files import write_json
from voxlift.app.runs.configuration import save_settings
from voxlift.app.runs.folder import RunFolder, save_network
from voxlift.app.training.baseline import load_trained
from voxlift.models.baselines import build_baseline
from voxlift.models.heads import append_cuts, append_scale, has_output_layer
from voxlift.models.lifting import LiftError
from voxlift.models.slice_model import wrap_slices

# Keras's own conversion of a TensorFlow variable to numpy raises it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def run(*arguments, cwd, timeout=600):
    return run_python("-m", "voxlift.app.cli.lift", *arguments, cwd=cwd, timeout=timeout)


def small_network(seed=0):
    keras.utils.set_random_seed(seed)
    return build_baseline("cnn", input_shape=(8, 10, 1), classes=3, filters=(4, 5, 6))


def slice_run(folder, *, kind="slice"):
    """The files of a finished run that a lift reads; its 2D network."""
    network = small_network()
    settings = TrainSettings(model=ModelSettings(name="slice2d", kind=kind))
    for part in ("data", "preprocess"):
        getattr(settings, part).name = "none"
    folder.mkdir()
    run_folder = RunFolder(folder)
    save_settings(settings, run_folder)
    wrap_slices(network, depth=6).save(run_folder.model)
    write_json(run_folder.metrics, {})
    return network


@pytest.fixture
def saved(tmp_path):
    network = small_network()
    path = tmp_path / "mine.keras"
    network.save(path)
    return network, path


def mean_kernels(model):
    return {layer.name: layer.get_weights()[0] for layer in model.layers if "conv" in layer.name}


@pytest.mark.slow
def test_the_command_prints_the_plan_verifies_the_lift_and_writes_a_model_that_a_new_process_loads(
    saved, tmp_path
):
    answer = run("network=mine.keras", "depth=6", "init=mean", "output=lifted.keras", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "stage1_conv" in answer.stdout
    assert answer.stdout.strip().splitlines()[-1] == "Model in lifted.keras"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lifted.keras", "mine.keras"]
    lifted = keras.saving.load_model(tmp_path / "lifted.keras")
    assert lifted.input_shape == (None, 6, 8, 10, 1)
    for name, kernel in mean_kernels(saved[0]).items():
        np.testing.assert_allclose(lifted.get_layer(name).get_weights()[0].sum(axis=0), kernel, rtol=1e-5)


def test_a_lift_of_a_file_is_the_lift_of_its_network(saved, tmp_path):
    network, path = saved
    target = tmp_path / "out.keras"
    assert lift(LiftSettings(network=str(path), depth=6, output=str(target))) == 0
    lifted = keras.saving.load_model(target)
    image = np.random.default_rng(0).normal(size=(2, 8, 10, 1)).astype("float32")
    volume = np.repeat(image[:, None], 6, axis=1)
    np.testing.assert_allclose(lifted(volume), network(image), rtol=1e-4, atol=1e-6)


def test_with_plan_only_nothing_is_built_verified_or_written(saved, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("voxlift.models.lifting.verify_lift", lambda *_, **__: pytest.fail("verified"))
    monkeypatch.setattr("voxlift.models.lifting.LiftPlan.build", lambda _: pytest.fail("it was built"))
    assert lift(LiftSettings(network=str(saved[1]), depth=6, plan_only=True)) == 0
    assert "stage3_conv" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [saved[1]]


def test_a_slice_run_gives_its_trained_2d_network(tmp_path):
    network = slice_run(tmp_path / "run")
    received = load_trained(tmp_path / "run")
    assert received.input_shape == (None, 8, 10, 1)
    for weight, expected in zip(received.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)
    target = tmp_path / "out.keras"
    assert lift(LiftSettings(network=str(tmp_path / "run"), depth=6, output=str(target))) == 0
    lifted = keras.saving.load_model(target)
    np.testing.assert_array_equal(
        lifted.get_layer("logits").get_weights()[0], network.get_layer("logits").get_weights()[0]
    )


def test_a_named_network_is_built_for_the_given_planes(capsys):
    settings = LiftSettings(
        network="MobileNetV2", input_shape=[8, 32, 40], depth_policy="preserve", plan_only=True
    )
    assert lift(settings) == 0
    assert "8x32x40x3" in capsys.readouterr().out


def test_channels_classes_and_another_size_reach_the_lift(saved, tmp_path):
    target = tmp_path / "out.keras"
    settings = LiftSettings(
        network=str(saved[1]), input_shape=[6, 12, 16], channels=2, classes=5, output=str(target)
    )
    assert lift(settings) == 0
    lifted = keras.saving.load_model(target)
    assert lifted.input_shape == (None, 6, 12, 16, 2)
    assert lifted.output_shape == (None, 5)


def test_other_classes_replace_what_a_number_or_grades_put_behind_the_dense_layer(tmp_path, capsys):
    keras.utils.set_random_seed(0)
    value = build_baseline("cnn", input_shape=(8, 10, 1), classes=1, filters=(4, 5, 6))
    finished = (append_scale(value, scale=9.0, offset=60.0), append_cuts(value, [-1.0, 0.5]))
    for network, outputs in zip(finished, (1, 3), strict=True):
        network.save(tmp_path / "other.keras")
        target = tmp_path / "out.keras"
        shared = {"network": str(tmp_path / "other.keras"), "depth": 6, "output": str(target)}
        assert lift(LiftSettings(**shared, overwrite=True)) == 0  # as it is, with what follows
        kept = keras.saving.load_model(target)
        assert (kept.output_shape, has_output_layer(kept)) == ((None, outputs), True)
        capsys.readouterr()
        assert lift(LiftSettings(**shared, classes=4, overwrite=True)) == 0
        assert network.layers[-1].name in capsys.readouterr().out
        replaced = keras.saving.load_model(target)
        assert (replaced.output_shape, has_output_layer(replaced)) == ((None, 4), False)


def test_what_cannot_be_lifted_is_refused_and_nothing_is_written(tmp_path):
    inputs = keras.Input((8, 8, 1))
    network = keras.Model(inputs, layers.Permute((2, 1, 3), name="turned")(inputs))
    network.save(tmp_path / "odd.keras")
    with pytest.raises(LiftError, match="turned"):
        lift(LiftSettings(network=str(tmp_path / "odd.keras"), depth=4, output=str(tmp_path / "o.keras")))
    assert [path.name for path in tmp_path.iterdir()] == ["odd.keras"]


def test_a_lift_that_fails_the_check_is_not_written(saved, tmp_path, monkeypatch):
    from dataclasses import replace

    import voxlift.models.lifting
    from voxlift.app.errors import UserError

    original = voxlift.models.lifting.verify_lift
    monkeypatch.setattr(
        "voxlift.models.lifting.verify_lift",
        lambda plan, **options: replace(original(plan, **options), difference=0.5, inexact={}),
    )
    settings = LiftSettings(network=str(saved[1]), depth=6, output=str(tmp_path / "out.keras"))
    with pytest.raises(UserError, match=r"5\.0e-01.*verify=false"):
        lift(settings)
    assert not (tmp_path / "out.keras").exists()


@pytest.mark.parametrize(("policy", "tolerance"), [("float32", 1e-4), ("mixed_bfloat16", 2e-2)])
def test_the_tolerance_is_that_of_the_precision_of_the_network(policy, tolerance, tmp_path, monkeypatch):
    import voxlift.models.lifting

    original, seen = voxlift.models.lifting.verify_lift, {}

    def verify(plan, **options):
        seen.update(options)
        return original(plan, **options)

    monkeypatch.setattr("voxlift.models.lifting.verify_lift", verify)
    inputs = keras.Input((8, 8, 1))
    x = layers.GlobalAveragePooling2D(dtype=policy)(layers.Conv2D(2, 3, dtype=policy)(inputs))
    keras.Model(inputs, layers.Dense(2, dtype="float32")(x)).save(tmp_path / "a.keras")
    assert (
        lift(LiftSettings(network=str(tmp_path / "a.keras"), depth=4, output=str(tmp_path / "b.keras"))) == 0
    )
    assert seen["tolerance"] == tolerance


def test_similar_names_are_suggested_for_an_unknown_network():
    with pytest.raises(LiftError, match="ResNet50"):
        lift(LiftSettings(network="ResNet5O", depth=4, plan_only=True))


def test_a_broken_save_leaves_the_old_file_and_no_other(tmp_path):
    target = tmp_path / "model.keras"
    target.write_text("old")

    class Broken:
        def save(self, path):
            Path(path).write_text("half")
            raise OSError(28, "No space left on device", str(path))

    with pytest.raises(OSError, match="No space"):
        save_network(Broken(), target)
    assert target.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [target]


MISTAKES = [  # settings, and what the message names
    ({"network": None}, "network:"),
    ({"network": "nowhere.keras"}, "network=nowhere.keras:"),
    ({"network": "runs/nowhere"}, "network=runs/nowhere:"),
    ({"output": None}, "output: output=NAME.keras plan_only=true"),
    ({"output": "model.h5"}, "output=model.h5: .keras"),
    ({"output": "no/folder/model.keras"}, "output=no/folder/model.keras:"),
    ({"output": "taken.keras"}, "output=taken.keras: overwrite=true"),
    ({"init": "zeros"}, "init: centre, mean, zeros."),
    ({"depth_policy": "deep"}, "depth_policy: isotropic, deep."),
    ({"depth_policy": "spacing"}, "spacing: depth_policy=spacing"),
    ({"depth": 0}, "depth: 0."),
    ({"input_shape": [8, 8]}, "input_shape: [depth,height,width]"),
    ({"depth": 4, "input_shape": [8, 8, 8]}, "depth=4: 8 input_shape"),
    ({"weights": "none.h5"}, "weights=none.h5: imagenet"),
]


def test_every_mistake_is_one_sentence_before_a_network_is_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("taken.keras").write_text("")
    for settings, named in MISTAKES:
        given = {"network": "ResNet50", "output": "new.keras", **settings}
        (problem,) = find_problems(LiftSettings(**given))
        assert [word for word in named.split() if word not in problem] == [], (settings, problem)
    assert len(find_problems(LiftSettings(init="zeros", depth=0))) == 4


def test_a_volume_run_and_an_unfinished_run_are_refused(tmp_path):
    slice_run(tmp_path / "volume", kind="volume")
    for folder, named in ((tmp_path / "volume", "volume"), (tmp_path, "metrics.json")):
        (problem,) = find_problems(LiftSettings(network=str(folder), plan_only=True))
        assert f"network={folder}" in problem
        assert named in problem


def test_an_existing_output_is_replaced_on_request(saved, tmp_path):
    target = tmp_path / "out.keras"
    target.write_text("old")
    given = LiftSettings(network=str(saved[1]), depth=6, output=str(target), overwrite=True, verify=False)
    assert find_problems(given) == []
    assert lift(given) == 0
    assert keras.saving.load_model(target).input_shape == (None, 6, 8, 10, 1)


def test_the_users_mistakes_end_in_status_2_without_tensorflow(tmp_path):
    code = (
        "import sys\nsys.argv = ['x', 'network=nowhere.keras']\ntry:\n"
        "    from voxlift.app.cli.lift import main; main()\n"
        "except SystemExit as end:\n    status = end.code\n"
        "print(sorted({'tensorflow', 'keras'} & set(sys.modules)), status)"
    )
    answer = run_python("-c", code, cwd=tmp_path)
    assert answer.stdout.strip().splitlines()[-1] == "[] 2", answer.stderr
    assert "nowhere.keras" in answer.stderr
    assert "Traceback" not in answer.stderr
