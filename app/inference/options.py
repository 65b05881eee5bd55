"""Choices of `voxlift-predict`, in a module that imports neither Matplotlib nor Keras."""

from __future__ import annotations

import importlib.util
from typing import Any

from voxlift.app.config import PredictSettings
from voxlift.app.errors import install_extra
from voxlift.app.runtime.devices import backend_name

ENGINES = ("auto", "tensorflow", "openvino")
EXPLAIN_METHODS = ("gradcam", "occlusion", "both")
VIEWS = ("none", "flips", "half_turns", "shifts")  # of test-time augmentation

_SYNONYMS = {False: None, "false": None, "none": None, True: "gradcam", "true": "gradcam"}


def resolve_explain_method(settings: PredictSettings) -> Any:  # noqa: ANN401 - the user's value where it is unknown
    """Return one of `EXPLAIN_METHODS`, None for no maps, or the value of `explain` if it is neither."""
    value = settings.explain
    return _SYNONYMS.get(value.lower() if isinstance(value, str) else value, value)


def find_engine_problems(engine: str, *, cluster: str = "none") -> list[str]:
    """Return one sentence for each reason why an engine cannot be used; nothing is imported.

    Args:
        engine: `auto`, `tensorflow` or `openvino`.
        cluster: Name of the cluster that scores shards of the scans.
    """
    if engine == "auto" and cluster != "none":
        problem = (
            f"engine=auto with cluster={cluster}: expected tensorflow or openvino; each worker would choose "
        )
        return [f"{problem}for itself, and the scores of one table would differ in rounding."]
    if engine != "openvino":
        return []
    problems = []
    if not has_openvino():
        problems.append(f"engine=openvino: expected the package openvino. {install_extra('openvino')}")
    if backend_name() != "tensorflow":
        problems.append(
            f"engine=openvino: expected KERAS_BACKEND=tensorflow, which exports the network; it is "
            f"{backend_name()}."
        )
    return problems


def has_openvino() -> bool:
    """Return whether OpenVINO can be imported, without importing it."""
    return importlib.util.find_spec("openvino") is not None
