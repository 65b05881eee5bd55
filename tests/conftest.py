"""What every test may rely on: quiet TensorFlow, no display, its own precision policy and backend."""

import os
import sys

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
BACKEND = os.environ.get("KERAS_BACKEND")


@pytest.fixture(autouse=True)
def restored_process():
    """Restore float32 and the backend: a training sets them for the whole process and its children."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].config.set_dtype_policy("float32")
    os.environ.pop("KERAS_BACKEND", None)
    if BACKEND is not None:
        os.environ["KERAS_BACKEND"] = BACKEND
