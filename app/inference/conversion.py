"""Write a network as SavedModel or ONNX, read it back, and compare its scores with the network's."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator

    from voxlift.data_pipelines.audit.prepared import TrainingRange


DEFAULT_SIDE = 16  # voxels along an axis for which the network accepts any size
BATCH_SIZES = (1, 3)  # two, to detect a model exported with a fixed batch size
Inputs: TypeAlias = tuple[NDArray[np.float32], ...]
"""Volumes [B, D, H, W, C], then columns [B, F] if the model takes any."""
Scorer: TypeAlias = Callable[[Inputs], NDArray[np.float32]]
"""From inputs to scores [B, K]."""


@dataclass(frozen=True, eq=False)
class ExportedModel:
    """A model on disk, read back.

    Attributes:
        file: Its name in the folder of the export.
        input_names: Names of the input tensors: the volumes, then the columns where the model takes any.
        output_name: Name of the output tensor.
        score: The model read back, from float32 inputs to scores [B, K].
    """

    file: str
    input_names: tuple[str, ...]
    output_name: str
    score: Scorer


@dataclass(frozen=True)
class Difference:
    """The largest differences between an exported model and a network.

    Attributes:
        volumes: Number of volumes that both scored.
        scores: Largest difference of a score.
        relative: The same, relative to the largest score or 1, whichever is larger.
        probabilities: Largest difference of a probability, or of a predicted number.
    """

    volumes: int
    scores: float
    relative: float
    probabilities: float


def write_saved_model(network: Any, folder: Path) -> ExportedModel:  # noqa: ANN401 - untyped Keras
    """Write a network as a SavedModel of TensorFlow.

    Args:
        network: A Keras model from volumes to scores.
        folder: Where `saved_model` is written.
    """
    import tensorflow as tf

    target = folder / "saved_model"
    with silence_converters():
        network.export(str(target), format="tf_saved_model", verbose=False)
        loaded = tf.saved_model.load(str(target))
    signature = loaded.signatures["serving_default"]
    shapes = {name: one.shape for name, one in signature.structured_input_signature[1].items()}
    input_names = tuple(sorted(shapes, key=lambda name: -len(shapes[name])))  # volumes have more axes
    (output_name,) = signature.structured_outputs

    def score(inputs: Inputs) -> NDArray[np.float32]:
        given = {name: tf.constant(one) for name, one in zip(input_names, inputs, strict=True)}
        return np.asarray(signature(**given)[output_name])

    return ExportedModel("saved_model", input_names, output_name, score)


def write_onnx(network: Any, folder: Path) -> ExportedModel:  # noqa: ANN401 - untyped Keras
    """Write a network as ONNX.

    Args:
        network: A Keras model from volumes to scores that computes in float32, see `convert_to_float32`.
        folder: Where `model.onnx` is written.
    """
    import onnxruntime

    target = folder / "model.onnx"
    network(given_inputs(random_inputs(network, 1, None, seed=0)))  # Keras exports only models once called
    with silence_converters():
        network.export(str(target), format="onnx", verbose=False)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(target), options, providers=["CPUExecutionProvider"])
    found = sorted(session.get_inputs(), key=lambda one: -len(one.shape))  # volumes have more axes
    input_names, output_name = tuple(one.name for one in found), session.get_outputs()[0].name

    def score(inputs: Inputs) -> NDArray[np.float32]:
        given = dict(zip(input_names, inputs, strict=True))
        return np.asarray(session.run([output_name], given)[0])

    return ExportedModel("model.onnx", input_names, output_name, score)


def convert_to_float32(network: Any) -> bool:  # noqa: ANN401 - untyped Keras
    """Make every layer compute in float32, and return whether any layer did not.

    The weights of a network trained in mixed precision are float32 already; only the precision of activations
    changes.
    """
    changed = False
    for layer in network._flatten_layers(include_self=False):  # noqa: SLF001 - no public walk into nested networks
        if getattr(layer, "compute_dtype", None) in {"float16", "bfloat16"}:
            layer.dtype_policy = "float32"
            changed = True
    return changed


def compare_converted(
    exported: Scorer,
    network: Any,  # noqa: ANN401 - untyped Keras
    training_range: TrainingRange | None,
    *,
    predict: Callable[[NDArray[Any]], NDArray[np.float64]],
) -> Difference:
    """Return the largest differences between an exported model and a network on random volumes.

    Args:
        exported: Scores volumes with the exported model.
        network: The Keras model to compare with.
        training_range: Intensities of the training volumes, for volumes that resemble them; None if unknown.
        predict: From scores to probabilities or numbers, see `Task.predict`.
    """
    scores, probabilities, largest = 0.0, 0.0, 1.0
    for count in BATCH_SIZES:
        inputs = random_inputs(network, count, training_range, seed=count)
        own = np.asarray(network(given_inputs(inputs), training=False), np.float32)
        other = np.asarray(exported(inputs), np.float32)
        scores = max(scores, float(np.abs(own - other).max()))
        largest = max(largest, float(np.abs(own).max()))
        first, second = predict(own), predict(other)
        probabilities = max(probabilities, float(np.abs(first - second).max()))
    return Difference(sum(BATCH_SIZES), scores, scores / largest, probabilities)


def random_inputs(
    network: Any,  # noqa: ANN401 - untyped Keras
    count: int,
    training_range: TrainingRange | None,
    *,
    seed: int,
) -> Inputs:
    """Return random volumes, and standard normal columns where the network takes any; as `random_volumes`."""
    voxels = random_volumes(tuple(network.inputs[0].shape), count, training_range, seed=seed)
    rng = np.random.default_rng(seed)
    columns = [rng.normal(size=(count, one.shape[1])).astype(np.float32) for one in network.inputs[1:]]
    return (voxels, *columns)


def given_inputs(inputs: Inputs) -> Any:  # noqa: ANN401 - one array, or a list of them
    """Return what a Keras model takes: volumes alone, or a list of volumes and columns."""
    return inputs[0] if len(inputs) == 1 else list(inputs)


def random_volumes(
    shape: tuple[int | None, ...], count: int, training_range: TrainingRange | None, *, seed: int
) -> NDArray[np.float32]:
    """Return noise with smooth structures, in the intensities of the training volumes if they are known.

    Args:
        shape: Of the network's input, [B, D, H, W, C]; None where any size is accepted.
        count: Number of volumes.
        training_range: Intensities of the training volumes.
        seed: Of the noise.

    Returns:
        Volumes [count, D, H, W, C].
    """
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    sides = [DEFAULT_SIDE if side is None else side for side in shape[1:]]
    voxels = rng.normal(size=(count, *sides))
    voxels += 4 * gaussian_filter(voxels, (0, 2, 2, 2, 0))
    voxels = (voxels - voxels.mean()) / voxels.std()
    if training_range is not None:
        means = np.array([np.mean(channel["mean"]) for channel in training_range.channels])
        deviations = np.array([np.mean(channel["sd"]) for channel in training_range.channels])
        voxels = voxels * deviations + means
    noise: NDArray[np.float32] = voxels.astype(np.float32)
    return noise


@contextmanager
def silence_converters() -> Iterator[None]:
    """Suppress the log output of the converters; the comparison afterwards reports what matters."""
    levels = {name: logging.getLogger(name).level for name in ("tensorflow", "tf2onnx", "absl")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
