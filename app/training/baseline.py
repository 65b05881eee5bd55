"""The network that a training starts from: what `model.baseline` names is checked, loaded, fitted to volumes.

All checks are made before any image is read.
"""

from __future__ import annotations

import json
import logging
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlift.app.config import ModelSettings, SettingsError, TrainSettings, check_settings
from voxlift.app.files import read_rows
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder, load_network
from voxlift.app.runs.suggestions import suggest_runs
from voxlift.app.runtime.devices import check_backend
from voxlift.app.runtime.setup import import_quietly
from voxlift.app.training.strategy.hosts import check_hosts
from voxlift.data_pipelines.files import find_real_path

if TYPE_CHECKING:
    from voxlift.app.training.networks import InputSpec
    from voxlift.data_pipelines.tables.manifest import Record

log = logging.getLogger("voxlift")

WEIGHT_SUFFIXES = (".h5", ".hdf5", ".ckpt", ".index", ".npz", ".pt", ".pth", ".safetensors")
BUILT_IN = ("cnn", "resnet", "tutorial")  # names that need no look into keras.applications

# (its split in the earlier run, its split here): pairs that would flatter the scores
LEAKS = {
    *(("train", split) for split in ("val", "test", "calibration")),
    *(("val", split) for split in ("test", "calibration")),
}
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


def check_training(settings: TrainSettings) -> None:
    """Pass when the settings fit together, and the baseline and the backend that they name exist.

    Raises:
        SettingsError: Listing all problems of a kind.
    """
    check_settings(settings)
    check_baseline(settings.model)
    check_hosts(settings) if settings.strategy == "hosts" else check_backend()


def check_slice_run(folder: Path, *, key: str) -> list[str]:
    """Return what keeps a folder from being a finished slice run, as sentences; nothing is loaded.

    Args:
        folder: An existing folder.
        key: The setting that names it, for the message.
    """
    run = RunFolder(folder)
    missing = [path.name for path in (run.config, run.model, run.metrics) if not path.is_file()]
    if missing:
        found = f"{key}={folder}: expected a finished slice run; it lacks {', '.join(missing)}."
        return [found if run.config.is_file() else f"{found} {suggest_runs(folder)}"]
    model = load_settings(run).model
    if model.kind != "slice" or model.aggregate == "gated_attention":
        expected = f"{key}={folder}: expected a slice run, whose 2D network gives scores of slices"
        return [f"{expected}; received a run of model={model.name}."]
    if model.join_columns:
        expected = f"{key}={folder}: expected a slice run of images alone, whose features can be lifted"
        return [f"{expected}; received one that joins model.columns={model.columns}."]
    return []


def check_baseline(model: ModelSettings) -> None:
    """Pass when `model.baseline` is a name, or names trained weights that this model can start from.

    Raises:
        SettingsError: There is no such file or finished slice run, `init` would discard the weights, or an
            untrained network would be frozen.
    """
    source = trained_source(model.baseline)
    problems = []
    if source is not None and source.is_dir():
        problems = check_slice_run(source, key="model.baseline")
    elif model.baseline.startswith("keras_hub:") and "/" in model.baseline:
        problems = _find_preset_problems(model)
    elif (source is not None and not source.is_file()) or (source is None and "/" in model.baseline):
        place = Path(model.baseline).expanduser()
        missing = f"model.baseline={model.baseline}: expected a .keras file or a run folder; found none."
        problems = [f"{missing} {suggest_runs(place)}"]
    elif Path(model.baseline).suffix in WEIGHT_SUFFIXES:
        expected = "expected a network, as a .keras file has it (network.save); a file of weights has none"
        others = "others are loaded by the function of model.builder"
        known = "Those of a network of keras.applications, kimm or keras_hub are given as model.weights=FILE"
        problems = [
            f"model.baseline={model.baseline}: {expected}. {known} with model.baseline=NETWORK; {others}."
        ]
    problems += _find_weights_problems(model, source)
    if problems:
        raise SettingsError("\n".join(problems))


def _find_preset_problems(model: ModelSettings) -> list[str]:
    """Return a sentence if `keras_hub:FOLDER` names no preset; nothing is loaded."""
    folder = Path(model.baseline.partition(":")[2]).expanduser()
    missing = [name for name in ("config.json", "model.weights.h5") if not (folder / name).is_file()]
    found = f"it lacks {' and '.join(missing)}" if folder.is_dir() else "there is no such folder"
    expected = f"model.baseline={model.baseline}: expected the folder of a preset of keras_hub"
    return [f"{expected}, as save_to_preset writes it; {found}."] if missing else []


def _find_weights_problems(model: ModelSettings, source: Path | None) -> list[str]:
    """Return a sentence for each setting that does not go with the weights that the network starts from."""
    problems, is_trained, is_volume = [], has_trained_weights(model), is_volume_file(source)
    if model.weights is not None and source is not None:
        problems.append(f"model.weights={model.weights}: {source} has its own; remove the key.")
    elif model.weights not in (None, "imagenet") and not Path(str(model.weights)).expanduser().is_file():
        problems.append(f"model.weights={model.weights}: expected imagenet or a file; there is no such file.")
    if is_volume and (model.filter_scale != 1 or model.depth_kernel is not None):
        problems.append(
            f"model.baseline={source}: expected the defaults of model.filter_scale and model.depth_kernel; "
            "it is a 3D network, which is not lifted."
        )
    freezes_own = model.builder is not None and model.freeze_epochs > 0  # the function gives trained weights
    if model.kind == "volume" and (is_trained or freezes_own) and not is_volume and model.init == "random":
        problems.append("model.init=random discards the trained 2D weights; set model.init=centre or mean.")
    if model.frozen and not is_trained and model.builder is None:
        problems.append(
            "model.frozen=true: expected trained weights, by model.pretrain=true, model.weights=imagenet, "
            "model.baseline=SLICE_RUN_DIR or model.baseline=FILE.keras; received an untrained network."
        )
    if model.freeze_epochs and not is_trained and model.builder is None:
        problems.append(
            f"model.freeze_epochs={model.freeze_epochs}: expected 0 for a network without trained weights, "
            "of which only the head would be trained. Use trained weights, by experiment=inflated, "
            "model.weights=imagenet or model.baseline=SLICE_RUN_DIR, or remove the key."
        )
    return problems


def check_name(model: ModelSettings) -> None:
    """Pass when an untrained network of that name can be built.

    Raises:
        SettingsError: With the names that exist.
    """
    is_built_in = not model.has_network or model.builder is not None or model.baseline in BUILT_IN
    if is_built_in or trained_source(model.baseline) is not None:
        return
    import_quietly()
    from voxlift.models.baselines import explain_unknown_baseline

    problem = explain_unknown_baseline(model.baseline)
    if problem:
        raise SettingsError(f"model.baseline={model.baseline}: {problem}")


def refuse_seen_subjects(model: ModelSettings, records: Sequence[Record], splits: Sequence[str]) -> None:
    """Pass when no subject of the earlier slice run's training is held out here.

    Two data sets may use the same subject names, so names count only where the two share an image.

    Args:
        model: With the slice run as its baseline.
        records: Of this training.
        splits: One for each record.

    Raises:
        SettingsError: Naming the subjects.
    """
    from voxlift.data_pipelines.tables.manifest import split_item  # numpy: not for --help

    source = trained_source(model.baseline)
    if source is None or not source.is_dir():
        return
    rows = read_rows(RunFolder(source).splits)
    theirs = _resolved(image for row in rows for image in split_item(row["image"]))
    if not theirs & _resolved(image for record in records for image in record.images):
        return
    earlier = {row["subject"]: row["split"] for row in rows}
    here = {record.subject: split for record, split in zip(records, splits, strict=True)}
    seen = [name for name, split in here.items() if (earlier.get(name), split) in LEAKS]
    if seen:
        more = f" and {len(seen) - 10} more" if len(seen) > 10 else ""
        raise SettingsError(
            f"model.baseline={source}: {len(seen)} subject(s) of that run are held out here "
            f"({', '.join(seen[:10])}{more}). Use its seed and splits, or another run."
        )


def _resolved(paths: Iterable[str | Path]) -> set[Path]:
    return {find_real_path(Path(path)) for path in paths}


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
        return False  # loading it reports what is wrong


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
    from voxlift.models.heads import has_output_layer, strip_output_layer

    depth, height, width, channels = spec.shape
    changes: dict[str, Any] = {"logits": True}
    if tuple(network.input_shape[1:3]) != (height, width):
        changes["input_shape"] = (depth, height, width)
    if network.input_shape[3] != channels:
        changes["channels"] = channels
    stripped = strip_output_layer(network)
    is_own = _has_outputs(stripped, source, spec)
    if not is_own:
        changes["classes"] = spec.units
        log.info("%s was trained on other classes: the head starts from new weights", source)
    _log_precision(network, source)
    keeps_output_layer = (
        is_own and has_output_layer(network) and type(network.layers[-1]).__name__ == spec.task.output_layer
    )
    return network if keeps_output_layer else stripped, changes


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
