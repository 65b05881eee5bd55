"""A user's own 2D network, with a layer of their own, goes through every command."""

import json
import sys

import keras
import numpy as np
import pytest

from commands import call_command, run_python
from tiny import TINY, places_in
from users_network import MODULE
from voxlift.app.files import read_json, read_rows
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.models.lifting import unregister_lift_rule

BUILDER = "model.builder={_target_: mynets.small_encoder, width: 4, kernels: [3, 3]}"
QUICK = ("augment=none", "logger=none", "preflight.enabled=false", "trainer.epochs=1")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with the user's module; what importing it has changed is undone."""
    (tmp_path / "mynets.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    keras.saving.get_custom_objects().pop("mynets>Gain", None)
    module = sys.modules.pop("mynets", None)
    if hasattr(module, "Gain"):
        unregister_lift_rule(module.Gain)


@pytest.mark.parametrize("model", [pytest.param("slice2d", marks=pytest.mark.slow), "volume3d"])
def test_a_users_network_goes_through_every_command_that_names_its_module(model, folder, capsys):
    start = ("-P", "-m", "voxlift.app.cli.train", *TINY, *QUICK, *places_in(folder, "run"))
    done = run_python(*start, f"model={model}", BUILDER, "custom=[mynets]", cwd=folder)
    assert done.returncode == 0, done.stderr
    run, custom = RunFolder(folder / "run"), "custom=[mynets]"
    assert "mynets" not in sys.modules

    assert call_command("train", f"resume={run.path}", "trainer.epochs=2") == 2
    assert "custom=" in capsys.readouterr().err
    (folder / "mynets.py").write_text(
        MODULE.replace("    images =", "    raise AssertionError\n    images =")
    )
    assert call_command("train", f"resume={run.path}", "trainer.epochs=2", custom) == 0
    assert len(read_rows(run.history)) == 2

    assert call_command("evaluate", f"run={run.path}", custom) == 0
    again = read_json(run.evaluation("test"))["test"]
    np.testing.assert_allclose(again["auc"], read_json(run.metrics)["test"]["auc"])
    scan = read_rows(run.splits)[0]["image"]
    predict = ("predict", f"run={run.path}", f"input={scan}", f"output={folder}/p.csv", "explain=true")
    assert call_command(*predict, custom) == 0
    assert len(read_rows(folder / "p.csv")) == 1
    assert list((folder / "p_maps").glob("*.nii.gz"))
    assert call_command("export", f"run={run.path}", f"output={folder}/export", custom) == 0
    assert json.loads((folder / "export" / "contract.json").read_text())

    # Without the key `custom` no command imports a module that a run names.
    (folder / "mynets.py").write_text("open('imported', 'w')\n")
    done = run_python("-P", "-m", "voxlift.app.cli.evaluate", "run=run", cwd=folder)
    assert done.returncode == 2
    assert "custom=" in done.stderr
    assert not (folder / "imported").exists()


@pytest.mark.slow
def test_a_network_in_a_yaml_file_of_the_user_is_compared(folder):
    (folder / "conf" / "model").mkdir(parents=True)
    builder = "builder: {_target_: mynets.small_encoder, width: 4, kernels: [3, 3]}"
    (folder / "conf" / "model" / "mine.yaml").write_text(f"name: mine\nkind: slice\n{builder}\n")
    start = ("-P", "-m", "voxlift.app.cli.compare", f"--config-dir={folder}/conf", "models=[linear,mine]")
    done = run_python(*start, *TINY, *QUICK, *places_in(folder, "run"), "custom=[mynets]", cwd=folder)
    assert done.returncode == 0, done.stderr
    run = RunFolder(folder / "run" / "runs" / "mine-seed0")
    assert load_settings(run).model.builder["_target_"] == "mynets.small_encoder"
    assert run.untrained.exists()
    assert set(read_json(folder / "run" / "comparison.json")["models"]) == {"linear", "mine"}


HEAD = "import keras\nfrom keras import layers\ndef build(input_shape, classes):\n    return keras.Sequential"
WRONG = {
    "signature": ("def build(shape, classes): ...", "input_shape"),
    "rank": (
        f"{HEAD}([keras.Input((4, *input_shape)), layers.Flatten(), layers.Dense(classes)])",
        "(None, 12, 16, 1)",
    ),
    "classes": (f"{HEAD}([keras.Input(input_shape), layers.Flatten(), layers.Dense(7)])", "(None, 7)"),
    "probabilities": (
        f"{HEAD}([keras.Input(input_shape), layers.Flatten(), layers.Dense(classes, 'softmax', True)])",
        "softmax",
    ),
    "no model": ("def build(input_shape, classes):\n    return 3", "int"),
    "its own error": ("def build(input_shape, classes):\n    return {}['width']", "mynets.py, line 2"),
    "import": ("import nothing_of_this_name", "nothing_of_this_name"),
    "name": ("def builder(input_shape, classes): ...", "builder?"),
    "subclass": (
        "import keras\nclass Own(keras.Model): ...\ndef build(input_shape, classes):\n    return Own()",
        "keras.Model(inputs, outputs)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_unusable_network_is_refused_before_any_image_is_read(case, folder, capsys):
    module, named = WRONG[case]
    (folder / "mynets.py").write_text(module)
    places = places_in(folder, "run")
    assert call_command("train", *TINY, *places, "model.builder={_target_: mynets.build}") == 2
    message = capsys.readouterr().err
    assert "mynets.build" in message
    assert named in message
    assert not (folder / "cache").exists()
    assert not (folder / "run").exists()


@pytest.mark.usefixtures("folder")
def test_a_builder_in_another_form_and_a_missing_module_are_refused(capsys):
    assert call_command("train", *TINY, "model.builder=mynets.build") == 2
    assert "_target_" in capsys.readouterr().err
    assert call_command("train", *TINY, BUILDER.replace("width", "widht")) == 2
    assert "widht" in capsys.readouterr().err
    assert call_command("train", *TINY, "model.baseline=mynets.weights.h5") == 2
    assert "model.weights=FILE" in capsys.readouterr().err
    assert call_command("train", *TINY, BUILDER, "model.baseline=resnet") == 2
    assert "model.baseline=resnet" in capsys.readouterr().err
    assert call_command("evaluate", "run=.", "custom=[not_there]") == 2
