"""`contract.json`: the preprocessing before an exported model, and the use of its scores after it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from voxlift import __version__
from voxlift.app.data.sources import region_columns
from voxlift.app.inference.ensemble import EnsembleMember, image_columns
from voxlift.app.tasks.base import task_of
from voxlift.data_pipelines.cache.format import NORMALISED
from voxlift.data_pipelines.preprocess.settings import Preprocess

VERSION = 1  # increase it if a program for the old version would misread the new one
REGION_VERSION = 2  # with masks or centres, which a program for the first version would ignore
TASK_VERSION = 3  # of other tasks than classes, whose outputs a program for the others would misread
COLUMNS_VERSION = 4  # with columns of the table as a second input, of any task, with or without a region
BIAS_VERSION = 5  # calibrated probabilities need a bias, which a program for the others would leave out
AXES = ["batch", "depth", "height", "width", "channels"]


def build_contract(
    member: EnsembleMember,
    preprocess: Preprocess,
    *,
    file: str,
    file_format: str,
    input_names: tuple[str, ...],
    output_name: str,
    shape: tuple[int | None, ...],
    checked: dict[str, Any],
) -> dict[str, Any]:
    """Return the contract of an export, as `contract.schema.json` describes it.

    Args:
        member: The run, with threshold and calibration.
        preprocess: Its preprocessing.
        file: Name of the model's file, beside the contract.
        file_format: `saved_model` or `onnx`.
        input_names: Names of the input tensors: the volumes, then the columns where the model takes any.
        output_name: Name of the output tensor.
        shape: Of the input, with the batch; None where any size is accepted.
        checked: The differences of the exported model from the run's own.
    """
    task = task_of(member.settings)
    names = task.names(member.settings.data)
    return {
        "contract": _find_version(member, preprocess),
        "voxlift": __version__,
        "run": str(member.run.path.absolute()),
        "model": {
            "file": file,
            "format": file_format,
            "input": {"name": input_names[0], "dtype": "float32", "shape": list(shape), "axes": AXES},
            **_describe_columns_input(member, input_names),
            "output": {
                "name": output_name,
                "dtype": "float32",
                "shape": [None, len(names)],
                "meaning": task.outputs_meaning,
            },
        },
        **({} if task.is_nominal else {"task": _describe_task(member)}),
        "classes": list(names) if task.target == "classes" else [],
        "threshold": member.threshold,
        "temperature": None if member.calibration is None else member.calibration.temperature,
        **({"bias": list(member.calibration.bias)} if member.calibration and member.calibration.bias else {}),
        "channels": list(image_columns(member.settings)),
        "preprocess": {**_describe_preprocess(preprocess), "rounded_to": rounded_dtype(preprocess)},
        **(_describe_region(member) if preprocess.mask else {}),
        **({"columns": member.encoder.as_json()} if member.encoder is not None else {}),
        "training_range": asdict(member.training_range) if member.training_range is not None else None,
        "checked": checked,
    }


def _describe_columns_input(member: EnsembleMember, input_names: tuple[str, ...]) -> dict[str, Any]:
    """Return the second input: numbers, marks of gaps, then words, each in the order of the columns."""
    if member.encoder is None:
        return {}
    features = list(member.encoder.features)
    shape = [None, len(features)]
    tensor = {"name": input_names[1], "dtype": "float32", "shape": shape, "features": features}
    return {"columns_input": tensor}


def _find_version(member: EnsembleMember, preprocess: Preprocess) -> int:
    if member.calibration is not None and member.calibration.bias:
        return BIAS_VERSION
    if member.encoder is not None:
        return COLUMNS_VERSION
    if not task_of(member.settings).is_nominal:
        return TASK_VERSION
    return REGION_VERSION if preprocess.mask else VERSION


def _describe_task(member: EnsembleMember) -> dict[str, Any]:
    """Return what the outputs are, their unit, and how they become a decision."""
    task = task_of(member.settings)
    names = task.names(member.settings.data)
    thresholds = dict(zip(names, member.thresholds, strict=True)) if member.thresholds else None
    return {
        "name": task.name,
        "outputs": list(names),
        "activation": task.activation,
        "unit": member.settings.task.unit or None,
        "thresholds": thresholds,
        "decision": task.decision_rule,
    }


def _describe_preprocess(preprocess: Preprocess) -> dict[str, Any]:
    values = asdict(preprocess)
    return (
        values if preprocess.mask else {name: values[name] for name in values if not name.startswith("mask")}
    )


def _describe_region(member: EnsembleMember) -> dict[str, Any]:
    """Return what the model needs beside the images: the table's columns of its mask or centre."""
    columns = region_columns(member.settings.data)
    return {"region": {"mask": columns.mask, "centre": list(columns.centre), "space": columns.space}}


def rounded_dtype(preprocess: Preprocess) -> str | None:
    """Return the dtype that the preprocessed voxels are rounded to before scoring; None for no rounding."""
    is_normalised = preprocess.window_hu or preprocess.clip_percentiles or preprocess.zscore != "none"
    return NORMALISED if is_normalised else None
