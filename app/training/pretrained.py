"""Trained 2D networks on disk: a `.keras` file, or the folder of a finished slice run."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlift.app.config import ModelSettings, SettingsError
from voxlift.app.files import read_rows
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder, hint_at_runs
from voxlift.app.runs.networks import load_network
from voxlift.app.runtime.setup import import_quietly
from voxlift.data_pipelines.tables.images import split_images

if TYPE_CHECKING:
    from voxlift.app.data.cohort import Cohort


OWN = ("cnn", "resnet", "tutorial")  # known without a look at what the engine has
log = logging.getLogger("voxlift")

# (its split in the earlier run, its split here): pairs that would flatter the scores
LEAKS = {("train", "val"), ("train", "test"), ("val", "test")}


def trained_source(baseline: str) -> Path | None:
    """The file or run folder that `model.baseline` names; None where it names an untrained network."""
    path = Path(baseline).expanduser()
    return path if path.suffix == ".keras" or path.is_dir() else None


def check_slice_run(folder: Path, *, key: str) -> list[str]:
    """What keeps a folder from being a finished slice run, as sentences; nothing is loaded.

    Args:
        folder: an existing folder.
        key: the setting that names it, for the message.
    """
    run = RunFolder(folder)
    missing = [path.name for path in (run.config, run.model, run.metrics) if not path.is_file()]
    if missing:
        return [f"{key}={folder}: expected a finished slice run; {', '.join(missing)} is not in it."]
    kind = load_settings(run).model.kind
    if kind != "slice":
        expected = f"{key}={folder}: expected a slice run, whose 2D network is lifted"
        return [f"{expected}; this is a {kind} run, its network is 3D already."]
    return []


def load_trained(source: Path) -> Any:  # noqa: ANN401 - Keras ships no types
    """The 2D network of a `.keras` file or a slice run, with its weights.

    Raises:
        SettingsError: the file cannot be loaded, or takes no images [B, H, W, C].
    """
    from voxlift.models.aggregation import unwrap_slices

    file = RunFolder(source).model if source.is_dir() else source
    network = unwrap_slices(load_network(file))
    shape = network.input_shape
    if isinstance(shape, tuple) and len(shape) != 4:
        raise SettingsError(f"{file}: expected a network for images [B, H, W, C]; it takes {shape}.")
    return network


def check_baseline(model: ModelSettings) -> None:
    """Pass when `model.baseline` names a network by name, or trained weights that this model can start from.

    Raises:
        SettingsError: no such file, no finished slice run, an `init` that would throw the weights away, or
            epochs in which an untrained network would be frozen.
    """
    source = trained_source(model.baseline)
    problems = []
    if source is not None and source.is_dir():
        problems = check_slice_run(source, key="model.baseline")
    elif (source is not None and not source.is_file()) or (source is None and "/" in model.baseline):
        place = Path(model.baseline).expanduser()
        said = f"model.baseline={model.baseline}: expected a .keras file or a run folder; there is none."
        problems = [f"{said} {hint_at_runs(place)}"]
    is_trained = source is not None or model.pretrain
    if model.kind == "volume" and is_trained and model.init == "random":
        problems.append(
            "model.init=random would throw the trained 2D weights away; say model.init=centre or mean."
        )
    if model.freeze_epochs and not is_trained:
        problems.append(
            f"model.freeze_epochs={model.freeze_epochs}: expected 0 for a network without trained weights, "
            "of which only the head would learn. Start from trained weights, with experiment=inflated or "
            "model.baseline=SLICE_RUN_DIR, or leave the key out."
        )
    if problems:
        raise SettingsError("\n".join(problems))


def check_name(model: ModelSettings) -> None:
    """Pass when an untrained network of that name can be built; asked before volumes are prepared.

    Raises:
        SettingsError: with the names that there are.
    """
    if model.kind == "table" or model.baseline in OWN or trained_source(model.baseline) is not None:
        return
    import_quietly()
    from voxlift.models.baselines.choose import unknown_baseline

    problem = unknown_baseline(model.baseline)
    if problem:
        raise SettingsError(f"model.baseline={model.baseline}: {problem}")


def refuse_seen_subjects(model: ModelSettings, cohort: Cohort) -> None:
    """Pass when nobody whom the earlier slice run learned from is held out here.

    Two data sets may use the same subject names, so names count only where the two share an image.

    Raises:
        SettingsError: naming the subjects.
    """
    source = trained_source(model.baseline)
    if source is None or not source.is_dir():
        return
    rows = read_rows(RunFolder(source).splits)
    theirs = _resolved(image for row in rows for image in split_images(row["image"]))
    if not theirs & _resolved(image for record in cohort.records for image in record.images):
        return
    earlier = {row["subject"]: row["split"] for row in rows}
    here = {record.subject: split for record, split in zip(cohort.records, cohort.splits, strict=True)}
    seen = [name for name, split in here.items() if (earlier.get(name), split) in LEAKS]
    if seen:
        more = f" and {len(seen) - 10} more" if len(seen) > 10 else ""
        raise SettingsError(
            f"model.baseline={source}: that run learned from {len(seen)} subject(s) that are held out here "
            f"({', '.join(seen[:10])}{more}). Use its seed and splits, or another run."
        )


def adaptations(network: Any, source: Path, cohort: Cohort) -> dict[str, Any]:  # noqa: ANN401 - untyped Keras
    """What `plan_lift` must change in a trained network, so that it takes this cohort's volumes and classes.

    A softmax or sigmoid at the end always goes: training and scoring work on logits.
    """
    depth, height, width, channels = cohort.shape
    changes: dict[str, Any] = {"logits": True}
    if tuple(network.input_shape[1:3]) != (height, width):
        changes["input_shape"] = (depth, height, width)
    if network.input_shape[3] != channels:
        changes["channels"] = channels
    if not _has_classes(network, source, cohort):
        changes["classes"] = len(cohort.classes)
        log.info("%s was trained on other classes: the head starts anew", source)
    _say_precision(network, source)
    return changes


def _has_classes(network: Any, source: Path, cohort: Cohort) -> bool:  # noqa: ANN401 - untyped Keras
    """Whether the network's head decides between this cohort's classes; a bare file tells only how many."""
    if source.is_dir() and tuple(load_settings(RunFolder(source)).data.classes) != cohort.classes:
        return False
    return bool(network.output_shape == (None, len(cohort.classes)))


def _say_precision(network: Any, source: Path) -> None:  # noqa: ANN401 - untyped Keras
    """Layers keep the precision they were saved with, whatever the run's own is: say so where they differ."""
    import keras

    wanted = keras.config.dtype_policy().compute_dtype
    computing = {layer.compute_dtype for layer in network.layers if "conv" in type(layer).__name__.lower()}
    if computing and computing != {wanted}:
        spoken = ", ".join(sorted(computing))
        log.info("%s keeps its own precision: its convolutions compute in %s", source, spoken)


def _resolved(paths: Iterable[str | Path]) -> set[Path]:
    return {Path(path).resolve() for path in paths}
