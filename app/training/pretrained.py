"""Trained networks that a model starts from: find them, load them, fit them to other volumes and classes."""

from __future__ import annotations

import json
import logging
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlift.app.config import ModelSettings, SettingsError
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder, load_network

if TYPE_CHECKING:
    from voxlift.app.training.networks import InputSpec

log = logging.getLogger("voxlift")

MAX_CONFIG_BYTES = 2**26  # of a network's description in its file
UNREADABLE = (  # what reading the description from a file of any content raises
    KeyError,
    TypeError,
    AttributeError,
    ValueError,
    OSError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


def trained_source(baseline: str) -> Path | None:
    """Return the file or run folder that `model.baseline` names; None where it names an untrained network."""
    path = Path(baseline).expanduser()
    return path if path.suffix == ".keras" or path.is_dir() else None


def is_volume_file(source: Path | None) -> bool:
    """Return whether a `.keras` file holds a 3D network of volumes [B, D, H, W, C]; it is not loaded.

    A slice model takes volumes, too, but is a 2D network, which can be lifted.
    """
    if source is None or source.is_dir() or not zipfile.is_zipfile(source):
        return False
    try:
        with zipfile.ZipFile(source) as file:
            if file.getinfo("config.json").file_size > MAX_CONFIG_BYTES:
                return False
            config = json.loads(file.read("config.json"))["config"]
        is_sliced = any(layer["class_name"] == "FoldSlices" for layer in config["layers"])
        return len(_read_input_shape(config)) == 5 and not is_sliced
    except UNREADABLE:
        return False  # loading it says what is wrong


def _read_input_shape(config: dict[str, Any]) -> list[int | None]:
    """Return the shape of a network's first input, with the batch, from its description in a file."""
    layers = config["layers"]
    inputs = config.get("input_layers")  # [name, 0, 0] for one input, a list of such for several
    if inputs is None:  # a sequential network begins with its input
        return list(layers[0]["config"]["batch_shape"])
    name = inputs[0] if isinstance(inputs[0], str) else inputs[0][0]
    (entry,) = [layer for layer in layers if layer["config"].get("name") == name]
    return list(entry["config"]["batch_shape"])


def has_trained_weights(model: ModelSettings) -> bool:
    """Return whether a network starts from trained 2D weights, by the time it is trained itself."""
    return model.pretrain or model.has_given_weights or trained_source(model.baseline) is not None


def load_trained(source: Path) -> Any:  # noqa: ANN401 - Keras ships no types
    """Load the 2D network of a `.keras` file or a slice run, with its weights.

    Raises:
        SettingsError: The file cannot be loaded, or does not take images [B, H, W, C].
    """
    from voxlift.models.slice_model import unwrap_slices

    file = RunFolder(source).model if source.is_dir() else source
    network = unwrap_slices(load_network(file))
    if len(network.inputs) > 1:
        raise SettingsError(
            f"{file}: expected a network with one input, images [B, H, W, C]; it takes {len(network.inputs)}."
        )
    shape = network.input_shape
    if isinstance(shape, tuple) and len(shape) != 4:
        raise SettingsError(f"{file}: expected a network for images [B, H, W, C]; it takes {shape}.")
    return network


def prepare_trained(network: Any, source: Path, spec: InputSpec) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401 - untyped Keras
    """Return a trained network to lift, and the arguments of `plan_lift` for other volumes and outputs.

    A softmax or sigmoid at the end is always removed: training and scoring work on logits. What another task
    has put behind the dense layer is removed too.

    Args:
        network: Of images [B, H, W, C].
        source: Its file or run folder.
        spec: The volumes and outputs that are wanted.
    """
    from voxlift.models.heads import has_ending, strip_ending

    depth, height, width, channels = spec.shape
    changes: dict[str, Any] = {"logits": True}
    if tuple(network.input_shape[1:3]) != (height, width):
        changes["input_shape"] = (depth, height, width)
    if network.input_shape[3] != channels:
        changes["channels"] = channels
    stripped = strip_ending(network)
    is_own = _has_outputs(stripped, source, spec)
    if not is_own:
        changes["classes"] = spec.units
        log.info("%s was trained on other classes: the head starts from new weights", source)
    _log_precision(network, source)
    keeps_ending = is_own and has_ending(network) and type(network.layers[-1]).__name__ == spec.task.ending
    return network if keeps_ending else stripped, changes


def _has_outputs(network: Any, source: Path, spec: InputSpec) -> bool:  # noqa: ANN401 - untyped Keras
    """Return whether the head gives these outputs; a bare file shows only how many it has."""
    if source.is_dir():
        saved = load_settings(RunFolder(source))
        if (saved.task.name, spec.task.names(saved.data)) != (spec.task.name, spec.classes):
            return False
    return bool(network.output_shape == (None, spec.units))


def _log_precision(network: Any, source: Path) -> None:  # noqa: ANN401 - untyped Keras
    """Log where a network's layers keep a saved precision that is not the run's."""
    import keras

    wanted = keras.config.dtype_policy().compute_dtype
    computing = {layer.compute_dtype for layer in network.layers if "conv" in type(layer).__name__.lower()}
    if computing and computing != {wanted}:
        found = ", ".join(sorted(computing))
        log.info("%s keeps its own precision: its convolutions compute in %s", source, found)
