"""Choices of `voxlift-predict`, in a module that imports neither Matplotlib nor Keras."""

from __future__ import annotations

from typing import Any

from voxlift.app.config import PredictSettings

EXPLAIN_METHODS = ("gradcam", "occlusion", "both")
VIEWS = ("none", "flips", "half_turns", "shifts")  # of test-time augmentation

_SYNONYMS = {False: None, "false": None, "none": None, True: "gradcam", "true": "gradcam"}


def resolve_explain_method(settings: PredictSettings) -> Any:  # noqa: ANN401 - the user's value where it is unknown
    """Return one of `EXPLAIN_METHODS`, None for no maps, or the value of `explain` if it is neither."""
    value = settings.explain
    return _SYNONYMS.get(value.lower() if isinstance(value, str) else value, value)
