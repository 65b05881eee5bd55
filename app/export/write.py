"""A network written in a form that other programs run, read back, and compared with what it was."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.inference.scores import softmax

if TYPE_CHECKING:
    from collections.abc import Iterator

    from voxlift.data_pipelines.cache.ranges import TrainingRange


FREE_SIDE = 16  # voxels along a side that the network leaves open, for the comparison
BATCHES = (1, 3)  # one volume, and several: a batch that was frozen in would show
Scorer = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Written:
    """A model on disk.

    Attributes:
        file: its name in the export's folder.
        input_name: of the tensor that takes volumes.
        output_name: of the tensor that gives scores.
        score: the model as read back: [B, D, H, W, C] float32 to [B, K].
    """

    file: str
    input_name: str
    output_name: str
    score: Scorer


@dataclass(frozen=True)
class Difference:
    """How far a written model is from a network.

    Attributes:
        volumes: that both scored.
        scores: the largest difference of a score.
        relative: the same over the largest score, or over 1 where that is smaller.
        probabilities: the largest difference of a probability.
    """

    volumes: int
    scores: float
    relative: float
    probabilities: float


def write_saved_model(network: Any, folder: Path) -> Written:  # noqa: ANN401 - untyped Keras
    """TensorFlow's SavedModel, in `folder/saved_model`."""
    import tensorflow as tf

    target = folder / "saved_model"
    with _quietly():
        network.export(str(target), format="tf_saved_model", verbose=False)
        loaded = tf.saved_model.load(str(target))
    signature = loaded.signatures["serving_default"]
    (input_name,) = signature.structured_input_signature[1]
    (output_name,) = signature.structured_outputs

    def score(voxels: NDArray[np.float32]) -> NDArray[np.float32]:
        outputs = signature(**{input_name: tf.constant(voxels)})
        return np.asarray(outputs[output_name])

    return Written("saved_model", input_name, output_name, score)


def write_onnx(network: Any, folder: Path) -> Written:  # noqa: ANN401 - untyped Keras
    """ONNX, in `folder/model.onnx`; the network computes in float32 throughout, see `in_float32`."""
    import onnxruntime

    target = folder / "model.onnx"
    network(
        random_volumes(network.input_shape, 1, None, seed=0)
    )  # Keras exports no network that was never called
    with _quietly():
        network.export(str(target), format="onnx", verbose=False)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(target), options, providers=["CPUExecutionProvider"])
    input_name, output_name = session.get_inputs()[0].name, session.get_outputs()[0].name

    def score(voxels: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(session.run([output_name], {input_name: voxels})[0])

    return Written("model.onnx", input_name, output_name, score)


def in_float32(network: Any) -> bool:  # noqa: ANN401 - untyped Keras
    """Make every layer compute in float32; whether any did not.

    The weights of a network trained in mixed precision are float32 already: only the rounding of what passes
    between its layers goes.
    """
    changed = False
    for layer in network._flatten_layers(include_self=False):  # noqa: SLF001 - no public walk into nested networks
        if getattr(layer, "compute_dtype", None) in {"float16", "bfloat16"}:
            layer.dtype_policy = "float32"
            changed = True
    return changed


def compare_written(
    written: Scorer,
    network: Any,  # noqa: ANN401 - untyped Keras
    seen: TrainingRange | None,
    *,
    seed: int = 0,
) -> Difference:
    """The largest differences between a written model and a network, on random volumes of two batch sizes."""
    scores, probabilities, largest = 0.0, 0.0, 1.0
    for count in BATCHES:
        voxels = random_volumes(network.input_shape, count, seen, seed=seed + count)
        own = np.asarray(network(voxels, training=False), np.float32)
        other = np.asarray(written(voxels), np.float32)
        scores, largest = (
            max(scores, float(np.abs(own - other).max())),
            max(largest, float(np.abs(own).max())),
        )
        probabilities = max(probabilities, float(np.abs(softmax(own) - softmax(other)).max()))
    return Difference(sum(BATCHES), scores, scores / largest, probabilities)


def random_volumes(
    shape: tuple[int | None, ...], count: int, seen: TrainingRange | None, *, seed: int
) -> NDArray[np.float32]:
    """Noise [count, D, H, W, C] with smooth parts, of training's intensities where they are known."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    sides = [FREE_SIDE if side is None else side for side in shape[1:]]
    voxels = rng.normal(size=(count, *sides))
    voxels += 4 * gaussian_filter(voxels, (0, 2, 2, 2, 0))
    voxels = (voxels - voxels.mean()) / voxels.std()
    if seen is not None:
        means = np.array([np.mean(channel["mean"]) for channel in seen.channels])
        deviations = np.array([np.mean(channel["sd"]) for channel in seen.channels])
        voxels = voxels * deviations + means
    noise: NDArray[np.float32] = voxels.astype(np.float32)
    return noise


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the converters' chatter, which tells a user nothing that the comparison does not."""
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
