"""Which maps a prediction is asked for."""

from __future__ import annotations

from typing import Any

from voxlift.app.config import PredictSettings

EXPLAIN = {False: None, "false": None, "none": None, True: "gradcam", "true": "gradcam"}
METHODS = ("gradcam", "occlusion", "both")


def explain_method(settings: PredictSettings) -> Any:  # noqa: ANN401 - what the user gave, where it is none of ours
    """`gradcam`, `occlusion`, `both`, or None for no maps."""
    given = settings.explain
    return EXPLAIN.get(given.lower() if isinstance(given, str) else given, given)
