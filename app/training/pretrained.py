"""Pretrained 2D networks on disk: a `.keras` file, or the folder of a finished slice run."""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlift.app.config import ModelSettings, SettingsError
from voxlift.app.files import read_rows
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.networks import load_network
from voxlift.app.runs.suggestions import suggest_runs
from voxlift.app.runtime.setup import import_quietly
from voxlift.data_pipelines.paths import find_real_path
from voxlift.data_pipelines.tables.manifest import split_images

if TYPE_CHECKING:
    from voxlift.data_pipelines.tables.manifest import Record


BUILT_IN = ("cnn", "resnet", "tutorial")  # names that need no look into keras.applications
log = logging.getLogger("voxlift")

# (its split in the earlier run, its split here): pairs that would flatter the scores
LEAKS = {("train", "val"), ("train", "test"), ("val", "test")}


def trained_source(baseline: str) -> Path | None:
    """Return the file or run folder that `model.baseline` names; None where it names an untrained network."""
    path = Path(baseline).expanduser()
    return path if path.suffix == ".keras" or path.is_dir() else None


def is_volume_file(source: Path | None) -> bool:
    """Return whether a `.keras` file holds a network of volumes [B, D, H, W, C]; it is not loaded."""
    if source is None or source.is_dir() or not zipfile.is_zipfile(source):
        return False
    try:
        with zipfile.ZipFile(source) as file:
            layers = json.loads(file.read("config.json"))["config"]["layers"]
        return any(len(layer["config"].get("batch_shape") or ()) == 5 for layer in layers)
    except (KeyError, TypeError, ValueError):
        return False  # loading it says what is wrong


def has_trained_weights(model: ModelSettings) -> bool:
    """Return whether a network starts from trained 2D weights, by the time it is trained itself."""
    return model.pretrain or model.weights is not None or trained_source(model.baseline) is not None


def check_slice_run(folder: Path, *, key: str) -> list[str]:
    """Return what keeps a folder from being a finished slice run, as sentences; nothing is loaded.

    Args:
        folder: An existing folder.
        key: The setting that names it, for the message.
    """
    run = RunFolder(folder)
    missing = [path.name for path in (run.config, run.model, run.metrics) if not path.is_file()]
    if missing:
        return [f"{key}={folder}: expected a finished slice run; it lacks {', '.join(missing)}."]
    kind = load_settings(run).model.kind
    if kind != "slice":
        expected = f"{key}={folder}: expected a slice run, whose 2D network can be lifted"
        return [f"{expected}; received a {kind} run."]
    return []


def load_trained(source: Path) -> Any:  # noqa: ANN401 - Keras ships no types
    """Load the 2D network of a `.keras` file or a slice run, with its weights.

    Raises:
        SettingsError: The file cannot be loaded, or does not take images [B, H, W, C].
    """
    from voxlift.models.slice_model import unwrap_slices

    file = RunFolder(source).model if source.is_dir() else source
    network = unwrap_slices(load_network(file))
    shape = network.input_shape
    if isinstance(shape, tuple) and len(shape) != 4:
        raise SettingsError(f"{file}: expected a network for images [B, H, W, C]; it takes {shape}.")
    return network


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
    elif (source is not None and not source.is_file()) or (source is None and "/" in model.baseline):
        place = Path(model.baseline).expanduser()
        missing = f"model.baseline={model.baseline}: expected a .keras file or a run folder; found none."
        problems = [f"{missing} {suggest_runs(place)}"]
    problems += _find_weights_problems(model, source)
    if problems:
        raise SettingsError("\n".join(problems))


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
    if model.kind == "volume" and is_trained and not is_volume and model.init == "random":
        problems.append("model.init=random discards the trained 2D weights; set model.init=centre or mean.")
    if model.freeze_epochs and not is_trained:
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
    source = trained_source(model.baseline)
    if source is None or not source.is_dir():
        return
    rows = read_rows(RunFolder(source).splits)
    theirs = _resolved(image for row in rows for image in split_images(row["image"]))
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


def lift_changes(
    network: Any,  # noqa: ANN401 - untyped Keras
    source: Path,
    *,
    shape: tuple[int, int, int, int],
    classes: tuple[str, ...],
) -> dict[str, Any]:
    """Return the arguments of `plan_lift` that fit a trained network to other volumes and classes.

    A softmax or sigmoid at the end is always removed: training and scoring work on logits.

    Args:
        network: Of images [B, H, W, C].
        source: Its file or run folder.
        shape: Depth, height, width and channels of the volumes.
        classes: Names in index order.
    """
    depth, height, width, channels = shape
    changes: dict[str, Any] = {"logits": True}
    if tuple(network.input_shape[1:3]) != (height, width):
        changes["input_shape"] = (depth, height, width)
    if network.input_shape[3] != channels:
        changes["channels"] = channels
    if not _has_classes(network, source, classes):
        changes["classes"] = len(classes)
        log.info("%s was trained on other classes: the head starts from new weights", source)
    _log_precision(network, source)
    return changes


def _has_classes(network: Any, source: Path, classes: tuple[str, ...]) -> bool:  # noqa: ANN401 - untyped Keras
    """Return whether the head distinguishes these classes; a bare file shows only how many it has."""
    if source.is_dir() and tuple(load_settings(RunFolder(source)).data.classes) != classes:
        return False
    return bool(network.output_shape == (None, len(classes)))


def _log_precision(network: Any, source: Path) -> None:  # noqa: ANN401 - untyped Keras
    """Log where a network's layers keep a saved precision that is not the run's."""
    import keras

    wanted = keras.config.dtype_policy().compute_dtype
    computing = {layer.compute_dtype for layer in network.layers if "conv" in type(layer).__name__.lower()}
    if computing and computing != {wanted}:
        found = ", ".join(sorted(computing))
        log.info("%s keeps its own precision: its convolutions compute in %s", source, found)


def _resolved(paths: Iterable[str | Path]) -> set[Path]:
    return {find_real_path(Path(path)) for path in paths}
