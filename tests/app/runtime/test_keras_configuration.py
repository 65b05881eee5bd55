"""Whatever the user's keras.json and Keras's variables say, a command uses the same layout and numbers."""

import json

import pytest

from commands import run_python

SCRIPT = """
from voxlift.app.errors import SettingsError
from voxlift.app.runtime.setup import _import_keras
try:
    _import_keras()
except SettingsError as error:
    raise SystemExit(f"error: {error}")
import keras
config = keras.config
print(config.image_data_format(), config.floatx(), config.epsilon(), config.dtype_policy().name,
      config.max_epochs(), config.max_steps_per_epoch(), config.backend())
"""
EXPECTED = "channels_last float32 1e-07 float32 None None numpy"
HARMLESS = (
    {"image_data_format": "channels_first"},
    {"floatx": "float64", "epsilon": 1e-3},
    {"floatx": "float16", "backend": "torch"},
    {"nnx_enabled": True, "image_dim_ordering": "th"},
    {},
)
UNUSABLE = ('{"floatx": "bfloat16"}', '{"image_data_format": "th"}', '{"epsilon": 1}', "[1]")


def import_keras(home, text, **environment):
    home.mkdir()
    (home / "keras.json").write_text(text)
    # The backend that is imported soonest; the configuration is read in the same way.
    variables = {"KERAS_HOME": str(home), "KERAS_BACKEND": "numpy", "KERAS_NNX_ENABLED": "false"}
    return run_python("-c", SCRIPT, **variables, **environment)


@pytest.mark.parametrize("number", range(len(HARMLESS)))
def test_a_users_configuration_changes_nothing(number, tmp_path):
    done = import_keras(tmp_path / "home", json.dumps(HARMLESS[number]))
    assert (done.returncode, done.stdout.strip()) == (0, EXPECTED), done.stderr


def test_variables_for_debugging_do_not_shorten_a_training(tmp_path):
    limits = {"KERAS_MAX_EPOCHS": "1", "KERAS_MAX_STEPS_PER_EPOCH": "1"}
    done = import_keras(tmp_path / "home", "not JSON", **limits)
    assert (done.returncode, done.stdout.strip()) == (0, EXPECTED), done.stderr


@pytest.mark.parametrize("text", UNUSABLE)
def test_a_configuration_that_keras_refuses_is_named(text, tmp_path):
    done = import_keras(tmp_path / "home", text)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert str(tmp_path / "home" / "keras.json") in done.stderr


DRAW = """
import sys
from pathlib import Path
from matplotlib.figure import Figure
from voxlift.app.report.pages import export_figure, figure_style
with figure_style():
    figure = Figure(figsize=(2, 2))
    figure.add_subplot().set_title("a_b % $x")
    export_figure(figure, Path(sys.argv[1]), "figure")
"""


def test_figures_are_the_same_whatever_the_machine_says(tmp_path):
    """Without a HOME, with one that cannot be written, and with a matplotlibrc that asks for LaTeX."""
    rules = "text.usetex: True\nfont.size: 40\nsavefig.dpi: 5\nsvg.fonttype: path\naxes.grid: True\n"
    (tmp_path / "matplotlibrc").write_text(rules)
    homes = ({}, {"HOME": "/nowhere"}, {"HOME": "/proc/1"}, {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc")})
    found = set()
    for number, variables in enumerate(homes):
        done = run_python("-c", DRAW, tmp_path / str(number), PYTHONHASHSEED="0", **variables)
        assert done.returncode == 0, done.stderr
        found.add((tmp_path / str(number) / "figure.svg").read_bytes())
    assert len(found) == 1
