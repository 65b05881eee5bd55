"""`config.yaml` of a run folder: the resolved configuration, how it is compared, and how a run is resumed.

`resume=RUN_DIR` opens a killed training again, with its own settings and precision. `train` then takes the
usual steps; `fit_loop` restores weights and position from the newest checkpoint. A run may be resumed for
more epochs, which is noted.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from voxlift import __version__
from voxlift.app.config import SettingsError, TrainSettings, check_settings
from voxlift.app.config.overrides import dump_settings, key_of, list_changes, restore_settings
from voxlift.app.errors import shorten
from voxlift.app.files import read_json, read_rows, write_json, write_text
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.suggestions import suggest_runs
from voxlift.data_pipelines.files import remove_leftovers

log = logging.getLogger("voxlift")

Settings = TypeVar("Settings")
UNREADABLE = (  # what reading YAML of any content into a schema raises
    OmegaConfBaseException,
    YAMLError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
)
TRIALS = "trials.csv"  # a comparison's table of its trainings, updated after each
LOCATIONS = ("*", "*/runs/*")  # of run folders below `runs_folder`: single runs, and those of comparisons
MAX_BYTES = 2**20
MAX_NODES = 20_000
MAX_DEPTH = 40
INTERPOLATION = re.compile(r"(?<!\\)(?:\\\\)*\$\{")  # `\${` is text
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Keys that may stand beside `resume=`, with those of `hosts`; any other would be another training.
RESUME_KEYS = ("resume", "trainer.epochs", "custom", "debug")


def save_settings(settings: TrainSettings, run: RunFolder) -> None:
    """Write the resolved configuration."""
    write_text(run.config, dump_settings(settings))


def load_settings(run: RunFolder) -> TrainSettings:
    """Return the configuration of a run; keys that are newer than the run have their defaults.

    Raises:
        SettingsError: The file cannot be read, or holds keys that this version does not know.
    """
    return read_config(
        run.config, lambda _: TrainSettings(), expected="a configuration written by voxlift-train"
    )


def read_config(file: Path, schema: Callable[[Any], Settings], *, expected: str) -> Settings:
    """Return a saved configuration as a value of its schema; keys that it lacks have the schema's defaults.

    Args:
        file: YAML file.
        schema: Returns the default settings, of the expected type, for the content of the file.
        expected: What the file should be, for the error message.

    Raises:
        SettingsError: The file cannot be read, or holds keys that the schema does not know.
    """
    try:
        saved = load_yaml(file)
        defaults = schema(saved)
        read = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(defaults), saved))
        settings = restore_settings(read)
        dump_settings(settings)  # a mapping among the items of a list is noticed only here
    except UNREADABLE as error:
        raise SettingsError(f"{file}: expected {expected}; {shorten(error)}") from error
    if not isinstance(settings, type(defaults)):
        raise SettingsError(f"{file}: expected {expected}.")
    return settings


def find_finished_run(wanted: TrainSettings, runs_folder: Path) -> RunFolder | None:
    """Return a finished run with the same settings, None where there is none.

    Only runs of this version of Voxlift count, and only those begun after the table of labels was last
    changed; the images themselves are assumed to be unchanged.
    """
    for run in _finished_runs(runs_folder):
        try:
            settings = load_settings(run)
            is_own_version = read_json(run.environment).get("voxlift") == __version__
        except SettingsError:
            continue  # not a run, or one of a version with other keys
        is_equal = not list_changes(settings, wanted) and not find_extension(run)
        if is_own_version and is_equal and _is_newer_than_table(run, wanted):
            return run
    return None


def find_in_comparison(folder: Path, wanted: TrainSettings) -> RunFolder | None:
    """Return a finished run with the same settings in the same comparison as a run's folder, if any."""
    table = folder.parent.parent / TRIALS
    for row in read_rows(table) if table.is_file() else []:
        run = RunFolder(Path(row["run"]))
        if run.is_finished and has_same_settings(run, wanted) and not find_extension(run):
            return run
    return None


def has_same_settings(run: RunFolder, wanted: TrainSettings) -> bool:
    """Return whether a training with the same settings was started in a folder, so that it can be resumed."""
    try:
        return not list_changes(load_settings(run), wanted)
    except (SettingsError, OSError):
        return False  # killed before it wrote its settings, or of a version with other keys


def refuse_other_run(run: RunFolder, wanted: TrainSettings) -> None:
    """Raise an error if a folder holds a finished run of other settings; results are never overwritten.

    Raises:
        SettingsError: It does; the message names the settings that differ.
    """
    if not run.is_finished:
        return
    changes = list_changes(load_settings(run), wanted)
    if extension := find_extension(run):
        changes.append(extension)
    if changes:
        raise SettingsError(
            f"{run.path}: expected a run with the requested settings, but it was trained with others "
            f"({'; '.join(changes)}). Choose another run_dir, or remove that folder."
        )


def _read_extensions(run: RunFolder) -> list[dict[str, Any]]:
    return list(read_json(run.extensions)["extensions"]) if run.extensions.exists() else []


def describe_extensions(run: RunFolder) -> list[str]:
    """Return a sentence about each time that the run was resumed for more epochs."""
    return [
        f"Resumed for more epochs: {one['from_epochs']} were planned, then {one['to_epochs']}, after "
        f"{one['trained']} were trained; {_describe_schedule(one)}."
        for one in _read_extensions(run)
    ]


def list_extensions(runs: Iterable[RunFolder]) -> list[str]:
    """Return the sentences of `describe_extensions` on several runs, each with the path of its run."""
    return [f"{run.path}: {sentence}" for run in runs for sentence in describe_extensions(run)]


def mark_extension(run: RunFolder) -> str:
    """Return a few words on a run that was resumed for more epochs, for a table; empty for any other."""
    steps = " and ".join(
        f"{one['from_epochs']} to {one['to_epochs']} epochs" for one in _read_extensions(run)
    )
    return f"resumed from {steps}" if steps else ""


def _describe_schedule(extension: Mapping[str, Any]) -> str:
    if extension["schedule"] == "constant":
        return "the learning rate is constant, as in one training"
    return "its learning rate rose again there, so that it is no training of that many epochs"


def write_extension(run: RunFolder, settings: TrainSettings, *, planned: int, trained: int) -> None:
    """Note that a run is resumed for more epochs.

    Args:
        run: Its folder.
        settings: With the new number of epochs.
        planned: Epochs of its settings so far.
        trained: Epochs that have been trained.
    """
    extension = {
        "from_epochs": planned,
        "to_epochs": settings.trainer.epochs,
        "trained": trained,
        "schedule": settings.optimizer.schedule,
    }
    write_json(run.extensions, {"extensions": [*_read_extensions(run), extension]})


def find_extension(run: RunFolder) -> str:
    """Return what makes an extended run differ from one training with its settings; empty for none."""
    changed = [one for one in _read_extensions(run) if one["schedule"] != "constant"]
    if not changed:
        return ""
    steps = " and ".join(f"{one['from_epochs']} to {one['to_epochs']}" for one in changed)
    return f"trainer.epochs: resumed from {steps} (its learning rate rose again) instead of one training"


def _finished_runs(runs_folder: Path) -> Iterator[RunFolder]:
    for location in LOCATIONS:
        for metrics in sorted(runs_folder.glob(f"{location}/metrics.json")):
            yield RunFolder(metrics.parent)


def _is_newer_than_table(run: RunFolder, wanted: TrainSettings) -> bool:
    table = Path(str(wanted.data.table)).expanduser()
    return not table.is_file() or table.stat().st_mtime <= run.config.stat().st_mtime


def load_yaml(file: Path) -> Any:  # noqa: ANN401 - a configuration of OmegaConf
    """Return a YAML file as a configuration of OmegaConf.

    Aliases, interpolations and depth can make a short file endless to read; Voxlift writes none of them.

    Raises:
        ValueError: The file is too large or too deep, or holds an alias or an interpolation.
        OSError, yaml.YAMLError, OmegaConfBaseException: It cannot be read, or is no YAML.
    """
    if file.exists() and not file.is_file():
        raise ValueError("it is no regular file")
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes")
    text = file.read_text(encoding="utf-8")
    problem = next(_find_problems(text), None)
    if problem:
        raise ValueError(problem)
    return OmegaConf.create(text)


def _find_problems(text: str) -> Iterator[str]:
    """Yield a sentence for whatever would take long to read, in the order of the text."""
    nodes = depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            yield f"line {line} has the alias *{event.anchor}; write its value instead"
        if isinstance(event, yaml.ScalarEvent) and INTERPOLATION.search(event.value):
            yield f"line {line} has an interpolation, ${{...}}; write its value instead"
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        nodes += isinstance(event, yaml.NodeEvent)
        if depth > MAX_DEPTH:
            yield f"line {line} has more than {MAX_DEPTH} levels"
        if nodes > MAX_NODES:
            yield f"it has more than {MAX_NODES} values"


def reopen_settings(
    path: str, *, overrides: Sequence[str], epochs: int, custom: Sequence[str] = ()
) -> tuple[RunFolder, TrainSettings]:
    """Return the folder of a run and its own settings, with the epochs that were asked for.

    Args:
        path: The run folder.
        overrides: The command line, as `key=value`.
        epochs: `trainer.epochs` of the command line, used if it is among the overrides.
        custom: Modules to import. Those in the run's configuration are not: it may be another user's.

    Raises:
        SettingsError: No run began there, or something else than more epochs is asked for.
    """
    run = RunFolder(Path(path).expanduser())
    keys = [key_of(override) for override in overrides]
    others = [key for key in keys if key not in RESUME_KEYS and not key.startswith("hosts.")]
    if others:
        raise SettingsError(
            f"resume={path} uses the configuration of that run: {', '.join(others)} cannot be changed (only "
            "trainer.epochs may be raised). For other settings start a new training in another run_dir."
        )
    if not run.config.exists():
        raise SettingsError(
            f"resume={path}: expected the folder of a training; "
            + (f"it has no {run.config.name}. " if run.path.exists() else "there is no such folder. ")
            + suggest_runs(run.path)
        )
    settings = _load_checked(run)
    wanted = epochs if "trainer.epochs" in keys else settings.trainer.epochs
    if wanted < settings.trainer.epochs:
        raise SettingsError(
            f"trainer.epochs={wanted}: expected at least the {settings.trainer.epochs} epochs of that run."
        )
    trainer = replace(settings.trainer, epochs=wanted)
    return run, replace(settings, trainer=trainer, run_dir=str(run.path), custom=list(custom))


def _load_checked(run: RunFolder) -> TrainSettings:
    """Return the settings of a run, whose values a damaged or edited file may have changed."""
    settings = load_settings(run)
    try:
        check_settings(settings)
    except SettingsError as error:
        raise SettingsError(f"{run.config}: expected settings of a training.\n{shorten(error)}") from error
    return settings


def is_complete(run: RunFolder, settings: TrainSettings) -> bool:
    """Return whether the run is finished and no more epochs are asked for."""
    return run.is_finished and load_settings(run).trainer.epochs >= settings.trainer.epochs


def reopen_run(run: RunFolder, settings: TrainSettings) -> None:
    """Mark the run as unfinished, and save the number of epochs that it has now."""
    done = len(read_rows(run.history)) if run.history.exists() else 0
    remove_leftovers(run.path)
    log.info("Resuming %s after %d of %d epochs", run.path, done, settings.trainer.epochs)
    if run.is_finished:
        run.metrics.replace(run.previous_metrics)
    planned = load_settings(run).trainer.epochs
    if planned != settings.trainer.epochs:
        write_extension(run, settings, planned=planned, trained=done)
        save_settings(settings, run)


def saved_precision(run: RunFolder, settings: TrainSettings) -> str:
    """Return the policy that the run began with; `auto` might choose another one on this machine.

    Raises:
        SettingsError: The file that holds it is damaged.
    """
    if not run.environment.exists():  # killed before it was written, so nothing has been trained yet
        return settings.precision
    return str(read_json(run.environment).get("precision", settings.precision))
