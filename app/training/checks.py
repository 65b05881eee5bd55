"""Checks of a training before any image is read: its settings, and what they name on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from voxlift.app.config import ModelSettings, SettingsError, TrainSettings, check_settings
from voxlift.app.files import read_rows
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.suggestions import suggest_runs
from voxlift.app.runtime.devices import check_backend
from voxlift.app.runtime.setup import import_quietly
from voxlift.app.training.pretrained import has_trained_weights, is_volume_file, trained_source
from voxlift.app.training.strategy.hosts import check_hosts
from voxlift.data_pipelines.files import find_real_path

if TYPE_CHECKING:
    from voxlift.data_pipelines.tables.manifest import Record

BUILT_IN = ("cnn", "resnet", "tutorial")  # names that need no look into keras.applications

# (its split in the earlier run, its split here): pairs that would flatter the scores
LEAKS = {
    *(("train", split) for split in ("val", "test", "calibration")),
    *(("val", split) for split in ("test", "calibration")),
}


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
        return [f"{key}={folder}: expected a finished slice run; it lacks {', '.join(missing)}."]
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
