"""Build the user's own 2D network: `model.builder={_target_: module.function, ...}`."""

from __future__ import annotations

import importlib
import inspect
import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from voxlift.app.config import SettingsError
from voxlift.app.config.keys import suggest
from voxlift.app.runtime.setup import allow_working_folder

FORM = "a function of input_shape (height, width, channels) and classes"


def build_users_network(
    builder: Mapping[str, Any], *, input_shape: tuple[int, int, int], classes: int
) -> Any:  # noqa: ANN401 - untyped Keras
    """Return the 2D network that a function of the user builds.

    Args:
        builder: `_target_` with the function's full name, and its further arguments.
        input_shape: Height, width and channels of a slice.
        classes: Number of classes.

    Raises:
        SettingsError: The function cannot be imported or called, or returns no network from slices
            [B, H, W, C] to logits [B, classes].
    """
    name = builder["_target_"]
    build = _find_function(builder)
    try:
        inspect.signature(build).bind(input_shape=input_shape, classes=classes)
    except (TypeError, ValueError) as error:  # a ValueError with a cause where a further argument is unknown
        raise SettingsError(
            f"model.builder: expected {name} to be {FORM}, with the other keys as its arguments; "
            f"{error.__cause__ or error}."
        ) from error
    try:
        network = build(input_shape=input_shape, classes=classes)
    except Exception as error:
        raise SettingsError(f"model.builder: {name} failed: {_describe_error(error)}") from error
    problem = _find_problem(network, input_shape, classes)
    if problem:
        raise SettingsError(f"model.builder: expected of {name} {problem}")
    return network


def _find_function(builder: Mapping[str, Any]) -> Callable[..., Any]:
    """Return the function with its further arguments as plain containers."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    allow_working_folder()
    try:
        build: Callable[..., Any] = instantiate({**builder, "_partial_": True}, _convert_="all")
    except InstantiationException as error:
        cause = " ".join(str(error.__cause__ or error).split())
        reason = _explain_import(builder["_target_"]) or f"{cause}."
        raise SettingsError(
            f"model.builder: {builder['_target_']} cannot be imported: {reason} Expected the form "
            f"module.function, with {FORM}, in a module in {os.getcwd()} or in an installed "  # noqa: PTH109 - for the message
            "one."
        ) from error
    return build


def _explain_import(target: str) -> str:
    """Return which part of `module.function` does not exist; empty where the import fails otherwise."""
    module, _, function = target.rpartition(".")
    try:
        found = importlib.import_module(module or target)
    except ModuleNotFoundError as error:
        return f"there is no module {error.name}." if (error.name or "-") in module else ""
    except Exception:  # noqa: BLE001 - the user's module fails by itself, which Hydra describes
        return ""
    return "" if hasattr(found, function) else f"{module} has no {function}.{suggest(function, dir(found))}"


def _describe_error(error: Exception) -> str:
    """Return the first line of an error, and where in the user's function it came up.

    JAX lists all weights below it where they differ between hosts.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [one for one in frames if one.filename != __file__ and "hydra" not in Path(one.filename).parts]
    where = f" (in {own[0].filename}, line {own[0].lineno})" if own else ""
    line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {line[:300]}{where}"


def _find_problem(network: Any, input_shape: tuple[int, int, int], classes: int) -> str:  # noqa: ANN401 - untyped Keras
    """Return what is wrong, as the end of a sentence; empty if it can be used."""
    import keras

    if not isinstance(network, keras.Model):
        return f"a Keras model; received {type(network).__name__}."
    inputs, outputs = getattr(network, "inputs", None) or [], getattr(network, "outputs", None) or []
    if len(inputs) != 1 or len(outputs) != 1:
        return (
            "a functional or sequential model with one input and one output; received "
            f"{len(inputs)} inputs and {len(outputs)} outputs. The layers of a subclassed model cannot be "
            "read: return keras.Model(inputs, outputs)."
        )
    expected, received = (None, *input_shape), tuple(inputs[0].shape)
    if len(received) != 4 or any(
        None not in pair and pair[0] != pair[1] for pair in zip(expected, received, strict=True)
    ):
        return f"a 2D network with the input [B, H, W, C] = {expected}; received {received}."
    if tuple(outputs[0].shape) != (None, classes):
        return f"logits of the shape {(None, classes)}; received {tuple(outputs[0].shape)}."
    last = network.layers[-1]
    function = getattr(getattr(last, "activation", None), "__name__", "")
    if isinstance(last, keras.layers.Softmax) or function in {"softmax", "sigmoid"}:
        return (
            f"logits; its last layer {last.name} ends with {function or 'softmax'}. Leave that out "
            "(of a network of keras.applications by classifier_activation: null)."
        )
    return ""
