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
