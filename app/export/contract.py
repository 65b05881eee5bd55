"""`contract.json`: what a program must do to an image before the exported model, and to its scores after."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from voxlift import __version__
from voxlift.app.inference.ensemble import Member, image_columns
from voxlift.data_pipelines.cache.format import NORMALISED
from voxlift.data_pipelines.preprocess.settings import Preprocess

VERSION = 1  # raise when a reader of the old form would misunderstand the new one
AXES = ["batch", "depth", "height", "width", "channels"]


def build_contract(
    member: Member,
    preprocess: Preprocess,
    *,
    file: str,
    file_format: str,
    input_name: str,
    output_name: str,
    shape: tuple[int | None, ...],
    checked: dict[str, Any],
) -> dict[str, Any]:
    """The contract, as `contract.schema.json` describes it.

    Args:
        member: the run, with threshold and temperature.
        preprocess: its preprocessing.
        file: of the model, beside the contract.
        file_format: `saved_model` or `onnx`.
        input_name: of the tensor that takes volumes.
        output_name: of the tensor that gives scores.
        shape: of the input, with the batch; None where any size is welcome.
        checked: how the written model compares with the run's own.
    """
    classes = list(member.settings.data.classes)
    return {
        "contract": VERSION,
        "voxlift": __version__,
        "run": str(member.run.path.absolute()),
        "model": {
            "file": file,
            "format": file_format,
            "input": {"name": input_name, "dtype": "float32", "shape": list(shape), "axes": AXES},
            "output": {
                "name": output_name,
                "dtype": "float32",
                "shape": [None, len(classes)],
                "meaning": "scores whose softmax is the probability of each class",
            },
        },
        "classes": classes,
        "threshold": member.threshold,
        "temperature": member.temperature,
        "channels": list(image_columns(member.settings)),
        "preprocess": {**asdict(preprocess), "rounded_to": rounding(preprocess)},
        "training_range": asdict(member.seen) if member.seen is not None else None,
        "checked": checked,
    }


def rounding(preprocess: Preprocess) -> str | None:
    """The type that prepared voxels are rounded to before they are scored; None where nothing is lost."""
    is_normalised = preprocess.window_hu or preprocess.clip_percentiles or preprocess.zscore != "none"
    return NORMALISED if is_normalised else None
