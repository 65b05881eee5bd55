"""What computes the scores of volumes: the network itself, or its conversion to OpenVINO, checked first."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.errors import SettingsError, install_extra, shorten
from voxlift.app.inference.conversion import (
    Inputs,
    convert_to_float32,
    given_inputs,
    random_volumes,
    silence_converters,
)
from voxlift.app.inference.options import has_openvino
from voxlift.app.progress import print_line
from voxlift.app.runs.folder import load_network
from voxlift.app.runtime.devices import backend_name, has_gpu
from voxlift.app.runtime.setup import FLOAT32_TOLERANCE, count_usable_cpus, rounding_tolerance

if TYPE_CHECKING:
    from voxlift.data_pipelines.audit.prepared import TrainingRange

# A conversion takes some seconds: `auto` tries it where the network itself would compute longer than this.
MIN_SECONDS = 30.0
MEASURED_SECONDS = 5.0  # of both engines together, after a first call of each
MAX_RATIO = 0.9  # of seconds: a smaller gain is within the noise of so short a measurement
KEPT_SHAPES = 8  # of batches, each with a compiled model


class ConversionError(RuntimeError):
    """A network that OpenVINO cannot read, or whose scores it does not reproduce."""


@dataclass(frozen=True, eq=False)
class Engine:
    """What scores the volumes of one network.

    Attributes:
        name: `tensorflow` (Keras on its backend) or `openvino`.
        reason: Why, for the log.
        scorer: Has the methods `predict` and `predict_on_batch` of a Keras model.
        ratio: Seconds a batch of OpenVINO over those of the network itself; None where not measured.
    """

    name: str
    reason: str
    scorer: Any
    ratio: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what a file of results holds about the engine."""
        ratio = None if self.ratio is None else round(self.ratio, 3)
        return {"name": self.name, "reason": self.reason, "seconds_ratio": ratio}


class ConvertedNetwork:
    """A network in OpenVINO, with the attributes and methods of a Keras model that scoring uses.

    Args:
        model: As OpenVINO has read it.
        network: The Keras model that it was made from.
        precision: `f32` or `bf16`, in which it computes.
    """

    def __init__(self, model: Any, network: Any, *, precision: str) -> None:  # noqa: ANN401 - untyped
        import openvino

        self.name, self.inputs, self.output_shape = network.name, network.inputs, network.output_shape
        self._model, self._core = model, openvino.Core()
        # OpenVINO otherwise computes in bfloat16 wherever the CPU can, and binds threads to cores, which
        # processes beside this one would share.
        self._options = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": count_threads(),
            "ENABLE_HYPER_THREADING": True,
            "ENABLE_CPU_PINNING": False,
        }
        # Volumes have more axes than columns.
        self._order = np.argsort([-len(one.partial_shape) for one in model.inputs], kind="stable")
        self._compiled: dict[tuple[tuple[int, ...], ...], Any] = {}

    def predict_on_batch(self, inputs: Any) -> NDArray[np.float32]:  # noqa: ANN401 - an array, or a list of them
        """Return the scores [B, K] of volumes [B, D, H, W, C], or of a list of volumes and columns."""
        arrays = [np.asarray(one, np.float32) for one in _flatten(inputs)]
        values = dict(zip(map(int, self._order), arrays, strict=True))
        return np.array(self._compile(tuple(one.shape for one in arrays))(values)[0], np.float32)

    def predict(self, batches: Iterable[Any], *, verbose: int = 0) -> NDArray[np.float32]:  # noqa: ARG002 - as Keras
        """Return the scores [N, K] of all batches, in order; a batch with columns is a tuple of one pair."""
        return np.concatenate([self.predict_on_batch(batch) for batch in batches])

    def _compile(self, shapes: tuple[tuple[int, ...], ...]) -> Any:  # noqa: ANN401 - untyped
        """Return the model for batches of these shapes: with a known shape it is faster."""
        if shapes not in self._compiled:
            if len(self._compiled) == KEPT_SHAPES:
                del self._compiled[next(iter(self._compiled))]
            model = self._model.clone()
            model.reshape(dict(zip(map(int, self._order), map(list, shapes), strict=True)))
            self._compiled[shapes] = self._core.compile_model(model, "CPU", self._options)
        return self._compiled[shapes]


def _flatten(inputs: Any) -> list[Any]:  # noqa: ANN401 - an array, or nested lists of them
    if isinstance(inputs, list | tuple):
        return [one for part in inputs for one in _flatten(part)]
    return [inputs]


def count_threads() -> int:
    """Return the threads that TensorFlow computes with in this process."""
    value = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    return int(value) if value.isdigit() and int(value) else count_usable_cpus()[0]


def choose_engine(
    asked: str,
    network: Any,  # noqa: ANN401 - untyped Keras
    file: Path,
    inputs: Sequence[Any],
    *,
    volumes: int,
    training_range: TrainingRange | None = None,
) -> Engine:
    """Return what scores the volumes of a network, and print which engine it is and why.

    Args:
        asked: `tensorflow`: the network itself. `openvino`: its conversion. `auto`: the conversion where
            a measurement on these volumes finds it faster and there are enough of them to be worth it.
        network: Scores volumes; its batch normalisations may be folded.
        file: The network in its run folder, which is loaded once more to be converted.
        inputs: The first batch: volumes [B, D, H, W, C], then columns [B, F] where the network takes any.
        volumes: How often a volume will be scored, views and covered copies counted.
        training_range: Intensities of the training volumes, for random volumes that resemble them.

    Raises:
        SettingsError: `openvino` was asked for and cannot be used.
    """
    if asked == "tensorflow":
        return Engine("tensorflow", "as set", network)
    batch = tuple(np.asarray(one, np.float32) for one in inputs)
    kept = _find_reason_to_keep(network, batch, volumes) if asked == "auto" else None
    engine = (
        Engine("tensorflow", kept, network)
        if kept
        else _try_openvino(asked, network, file, batch, training_range)
    )
    print_line(f"Engine: {'OpenVINO' if engine.name == 'openvino' else 'TensorFlow'} ({engine.reason}).")
    return engine


def _find_reason_to_keep(network: Any, batch: Inputs, volumes: int) -> str | None:  # noqa: ANN401 - untyped Keras
    """Return why `auto` does not try OpenVINO; None where it is worth trying."""
    if not has_openvino():
        return f"OpenVINO is not installed. {install_extra('openvino').rstrip('.')}"
    if backend_name() != "tensorflow":
        return f"OpenVINO needs KERAS_BACKEND=tensorflow, which is {backend_name()}"
    if has_gpu():
        return "a GPU computes, and OpenVINO is used on CPUs alone"
    own = given_inputs(batch)
    network.predict_on_batch(own)  # the first call traces the network
    seconds = _time(network, own) * volumes / len(batch[0])
    if seconds < MIN_SECONDS:
        return f"all volumes take about {seconds:.1f} s, too little for a conversion to be worth it"
    return None


def _try_openvino(
    asked: str,
    network: Any,  # noqa: ANN401 - untyped Keras
    file: Path,
    batch: Inputs,
    training_range: TrainingRange | None,
) -> Engine:
    try:
        converted, difference = convert_network(network, file, batch, training_range)
    except ConversionError as error:
        if asked == "openvino":
            raise SettingsError(f"engine=openvino: {error} Use engine=tensorflow.") from error
        return Engine("tensorflow", str(error).rstrip("."), network)
    own, other = measure_pair(network, converted, batch)
    ratio = other / own
    reason = (
        f"OpenVINO takes {ratio:.2f} times the seconds of TensorFlow, {1e3 * other:.1f} and "
        f"{1e3 * own:.1f} ms for {len(batch[0])} volumes; scores differ by at most {difference:.1e} of the "
        "largest"
    )
    if asked == "auto" and ratio > MAX_RATIO:
        return Engine("tensorflow", reason, network, ratio)
    return Engine("openvino", f"as set; {reason}" if asked == "openvino" else reason, converted, ratio)


def convert_network(
    network: Any,  # noqa: ANN401 - untyped Keras
    file: Path,
    batch: Inputs,
    training_range: TrainingRange | None,
) -> tuple[ConvertedNetwork, float]:
    """Return a network in OpenVINO, and the largest difference of its scores, relative to the largest score.

    The conversion in float32 must agree with the Keras model in float32. For a network that computes in
    bfloat16 it then computes in bfloat16, too, and must agree with the network itself as far as eight bits
    allow. Checked are the volumes of the batch, and a random one.

    Args:
        network: Scores volumes, as in `choose_engine`.
        file: The network in its run folder.
        batch: Volumes, and columns where it takes any.
        training_range: As in `choose_engine`.

    Raises:
        ConversionError: OpenVINO cannot read the network, or its scores differ.
    """
    from voxlift.models.batch_norm import fold_batch_norm

    single = load_network(file)
    convert_to_float32(single)
    single = fold_batch_norm(single)
    checked = [batch, _random_batch(batch, training_range)]
    try:
        with silence_converters():
            model = _read_model(single)
            exact = ConvertedNetwork(model, network, precision="f32")
            difference = _difference(exact, single, checked)
    except Exception as error:  # the exporter and OpenVINO raise errors of many classes
        raise ConversionError(f"{file}: OpenVINO cannot convert it: {shorten(error)}") from error
    _refuse_difference(difference, FLOAT32_TOLERANCE, file)
    if not _computes_in_bfloat16(network):
        return exact, difference
    fast = ConvertedNetwork(model, network, precision="bf16")
    difference = _difference(fast, network, checked)
    _refuse_difference(difference, rounding_tolerance(network), file)
    return fast, difference


def _read_model(network: Any) -> Any:  # noqa: ANN401 - untyped
    """Return a network as OpenVINO reads its SavedModel; `read_model` sends no usage data."""
    import openvino

    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})  # the files are removed below
    with tempfile.TemporaryDirectory() as folder:
        network.export(folder, format="tf_saved_model", verbose=False)
        return core.read_model(folder)


def _computes_in_bfloat16(network: Any) -> bool:  # noqa: ANN401 - untyped Keras
    layers = network._flatten_layers(include_self=False)  # noqa: SLF001 - Keras has no public walk into nested networks
    return any(getattr(layer, "compute_dtype", None) == "bfloat16" for layer in layers)


def _random_batch(batch: Inputs, training_range: TrainingRange | None) -> Inputs:
    """Return one random volume, and columns, of the sizes of a batch."""
    columns = [np.random.default_rng(0).normal(size=(1, one.shape[1])) for one in batch[1:]]
    voxels = random_volumes((None, *batch[0].shape[1:]), 1, training_range, seed=0)
    return (voxels, *(one.astype(np.float32) for one in columns))


def _difference(converted: ConvertedNetwork, network: Any, batches: Sequence[Inputs]) -> float:  # noqa: ANN401 - untyped Keras
    """Return the largest difference of a score, relative to the largest score or 1; nan for what is none."""
    found = []
    for batch in batches:
        own = np.asarray(network.predict_on_batch(given_inputs(batch)), np.float32)
        other = converted.predict_on_batch(given_inputs(batch))
        found.append(np.abs(own - other).max() / max(1.0, float(np.abs(own).max())))
    return float(np.max(found))


def _refuse_difference(difference: float, tolerance: float, file: Path) -> None:
    if not difference <= tolerance:  # also for nan
        raise ConversionError(
            f"{file}: expected OpenVINO's scores to equal those of the network up to {tolerance:g} of the "
            f"largest score; they differ by {difference:.1e}."
        )


def measure_pair(network: Any, converted: ConvertedNetwork, batch: Inputs) -> tuple[float, float]:  # noqa: ANN401 - untyped Keras
    """Return the seconds of both for a batch: the best of calls in turn, so that other work slows both.

    Args:
        network: The Keras model.
        converted: The same in OpenVINO.
        batch: Volumes, and columns where it takes any.
    """
    own = given_inputs(batch)
    for scorer in (network, converted):
        scorer.predict_on_batch(own)
    started, times = time.perf_counter(), list[tuple[float, float]]()
    while not times or (len(times) < 50 and time.perf_counter() - started < MEASURED_SECONDS):
        times.append((_time(network, own), _time(converted, own)))
    first, second = np.min(times, axis=0)
    return float(first), float(second)


def _time(scorer: Any, inputs: Any) -> float:  # noqa: ANN401 - untyped
    started = time.perf_counter()
    np.asarray(scorer.predict_on_batch(inputs))
    return time.perf_counter() - started
