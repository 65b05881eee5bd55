"""What the groups `data`, `preprocess` and `augment` name: a table, a preprocessing, an augmentation.

Phantom and MedMNIST files are written on first use. For `preprocess=auto` some images are read; grid and
intensities are decided from them, and become plain settings.
"""

from __future__ import annotations

import csv
import functools
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from voxlift.app.config import (
    DataSettings,
    PrepareSettings,
    PreprocessSettings,
    SettingsError,
    TrainSettings,
    check_settings,
)
from voxlift.app.config.overrides import format_override
from voxlift.app.config.schema import NOT_DECIDED
from voxlift.app.progress import counted_bar, phase, print_line, progress_bar
from voxlift.app.tasks.base import Task, task_of
from voxlift.data_pipelines.augment import Augment
from voxlift.data_pipelines.preprocess.auto import (
    AIR_HU,
    AutoPreprocess,
    Probe,
    decide_preprocess,
    probe_records,
)
from voxlift.data_pipelines.preprocess.settings import PRESETS, Preprocess
from voxlift.data_pipelines.tables.manifest import Manifest, Record, TableOptions, load_manifest
from voxlift.data_pipelines.tables.reader import read_table, require_columns
from voxlift.data_pipelines.tables.regions import RegionColumns
from voxlift.data_pipelines.tables.subjects import SUBJECT_NOTES

log = logging.getLogger("voxlift")

BUDGETS = (64, 96, 128)  # cubed: a first look, the usual, as fine as most GPUs allow
KIND_NAMES = {
    "ct": "computed tomography",
    "mri": "grey scale as in MRI",
    "signed": "a map around 0",
    "mask": "masks",
}


def load_subjects(data: DataSettings, task: Task, *, allow_absent: bool = False) -> Manifest:
    """Return the manifest that the data settings name.

    Phantom and MedMNIST files are written on first use.

    Args:
        data: The settings.
        task: How the label is read.
        allow_absent: Whether classes may have no row.

    Raises:
        ManifestError: The table cannot be used.
    """
    data = locate_table(data)
    options = replace(table_options(data, task), allow_absent=allow_absent)
    manifest = load_manifest(str(data.table), options)
    task.check_names(manifest.classes, data)
    if not allow_absent:
        task.check_records(manifest)
    for kind, note in manifest.notes.items():
        log.log(logging.WARNING if kind in SUBJECT_NOTES else logging.INFO, "%s: %s", manifest.source, note)
    if manifest.left_out:
        log.info("Rows left out of %s: %s", manifest.source, describe_left_out(manifest))
    return manifest


def locate_table(data: DataSettings) -> DataSettings:
    """Return the settings with their table; those of phantom and MedMNIST are written on first use."""
    if data.name == "manifest":
        return data
    return _write_phantom(data) if data.name == "phantom" else _write_medmnist(data)


def dataset_name(data: DataSettings) -> str:
    """Return a short name of the data set for a folder: that of a table with its parent folder.

    >>> dataset_name(DataSettings(name="manifest", table="/data/lesions/labels.csv"))
    'lesions-labels'
    """
    if data.name == "phantom":
        return f"phantom-{data.task}"
    path = Path(str(data.npz if data.name == "medmnist3d" else data.table)).expanduser().absolute()
    parts = [path.stem] if data.name == "medmnist3d" or path.is_dir() else [path.parent.name, path.stem]
    return re.sub(r"[^\w.-]+", "_", "-".join(part for part in parts if part)) or data.name


def table_options(data: DataSettings, task: Task) -> TableOptions:
    """Return the table options of data settings and task; absent files stay where bad ones are skipped."""
    return TableOptions(
        root=data.root or None,
        image_column=data.image_column,
        image_columns=tuple(data.image_columns),
        label_column=data.label_column,
        label_columns=tuple(data.label_columns),
        target=task.target,
        subject_column=data.subject_column,
        split_column=data.split_column,
        classes=tuple(data.classes),
        label_bins=tuple(data.label_bins),
        regions=region_columns(data),
        keep_absent=data.on_bad_file == "skip",
    )


def region_columns(data: DataSettings) -> RegionColumns:
    """Return the columns of the masks or centres."""
    return RegionColumns(data.mask_column, tuple(data.centre_columns), data.centre_space)


def describe_left_out(manifest: Manifest) -> str:
    """Return why rows are not used, each reason with its number of rows."""
    return ", ".join(f"{reason} ({count})" for reason, count in manifest.left_out.items())


def check_columns(data: DataSettings, columns: Sequence[str]) -> None:
    """Raise if the user's own table lacks columns that `model.columns` names.

    Raises:
        ManifestError: It does, or cannot be read.
    """
    table = Path(str(data.table)).expanduser()
    if data.name == "manifest" and not table.is_dir():
        require_columns(read_table(table), columns, setting="model.columns")


def _write_phantom(data: DataSettings) -> DataSettings:
    """Write the phantom's files; return the settings of its table."""
    from voxlift.data_pipelines.phantom.tasks import classes_of_task, findings_of_task
    from voxlift.data_pipelines.phantom.write import write_phantom

    task, subjects = str(data.task), int(data.subjects or 0)
    with progress_bar(f"Writing phantom {task}", subjects) as advance:
        table = write_phantom(
            data.folder,
            task=task,
            subjects=subjects,
            seed=0,  # of the data set; the run's seed splits and trains
            workers=os.cpu_count() or 1,
            progress=lambda _done, _total: advance(),
        )
    findings = data.label_columns or findings_of_task(task)
    located = _with_written_columns(data, table, classes_of_task(task))
    return replace(located, label_columns=list(findings))


def _write_medmnist(data: DataSettings) -> DataSettings:
    """Write the benchmark's files; return the settings of its table."""
    from voxlift.data_pipelines.medmnist import classes_of, write_medmnist

    npz = Path(str(data.npz)).expanduser()
    with counted_bar(f"Writing {npz.name} as NIfTI files") as count:
        table = write_medmnist(npz, data.folder, workers=os.cpu_count() or 1, progress=count)
    return _with_written_columns(data, table, classes_of(table, npz))


def _with_written_columns(data: DataSettings, table: Path, classes: tuple[str, ...]) -> DataSettings:
    """Return the settings of a table that we wrote; the user's choice of classes is kept."""
    with table.open(encoding="utf-8", newline="") as file:
        has_split = "split" in next(csv.reader(file))
    return replace(
        data,
        table=str(table),
        image_column="file",
        label_column="label",
        subject_column="participant_id",
        split_column="split" if has_split else None,
        classes=list(data.classes or classes),
    )


@dataclass(frozen=True)
class AutoChoice:
    """What `preprocess=auto` stands for.

    Attributes:
        settings: The plain settings.
        decided: What they were decided from.
        others: The decision for the other budgets, by budget.
    """

    settings: PreprocessSettings
    decided: AutoPreprocess
    others: dict[int, AutoPreprocess] = field(default_factory=dict)


def decide_grid(settings: TrainSettings) -> AutoChoice | None:
    """Return what `preprocess=auto` stands for; None where another preprocessing was chosen.

    They are printed once, and decided once for all trainings of a process on the same images.

    Args:
        settings: Checked; checked again with what was decided.

    Raises:
        VolumeError, ManifestError: No image could be read, or the table cannot be used.
        SettingsError: What was decided does not go with other settings.
    """
    if settings.preprocess.name != "auto":
        return None
    choice = _decide(_identify(settings))
    check_settings(replace(settings, preprocess=choice.settings))
    return choice


def resolve_preprocess(settings: TrainSettings) -> TrainSettings:
    """Return settings with plain ones in place of `preprocess=auto`; raises as `decide_grid`."""
    choice = decide_grid(settings)
    return settings if choice is None else replace(settings, preprocess=choice.settings)


def resolve_preparation(settings: PrepareSettings) -> PrepareSettings:
    """Return settings with what a training would decide in place of `preprocess=auto`.

    Raises:
        VolumeError, ManifestError: No image could be read, or the table cannot be used.
    """
    if settings.preprocess.name != "auto":
        return settings
    return replace(settings, preprocess=_decide(_identify(settings)).settings)


@dataclass(frozen=True)
class _Key:
    """Settings, equal to others that name the same images: the trainings of a comparison read them once."""

    identity: str
    settings: TrainSettings | PrepareSettings = field(compare=False)


def _identify(settings: TrainSettings | PrepareSettings) -> _Key:
    table = Path(str(settings.data.table)).expanduser()
    changed = table.stat().st_mtime_ns if table.exists() else 0
    return _Key(repr((settings.data, settings.task, settings.preprocess, changed)), settings)


@functools.lru_cache(maxsize=8)
def _decide(key: _Key) -> AutoChoice:
    """Decide and print; the cache makes it once for equal settings."""
    settings, asked = key.settings, key.settings.preprocess
    probes = probe_table(settings.data, asked, task_of(settings), workers=settings.cache.workers)
    choice = choose_preprocess(probes, asked, settings.data)
    for line in describe_choice(choice, asked.budget):
        print_line(line)
    return choice


def probe_table(
    data: DataSettings, preprocess: PreprocessSettings, task: Task, *, workers: int = 0
) -> tuple[Probe, ...]:
    """Return probes of some images of a table.

    Raises:
        VolumeError, ManifestError: No image could be read, or the table cannot be used.
    """
    located = locate_table(data)
    options = replace(table_options(located, task), allow_absent=True)
    records = load_manifest(str(located.table), options).records
    return probe_images(records, preprocess, data, workers=workers)


def probe_images(
    records: Sequence[Record], preprocess: PreprocessSettings, data: DataSettings, *, workers: int = 0
) -> tuple[Probe, ...]:
    """Return probes of some of the records, whatever their split: no label is used.

    Raises:
        VolumeError: No image could be read.
    """
    with phase("Reading some images to decide the preprocessing"):
        reading = build_preprocess(replace(preprocess, spacing="native", shape=None), data)
        return tuple(probe_records(records, reading, workers=workers or os.cpu_count() or 1))


def as_auto(asked: PreprocessSettings) -> PreprocessSettings:
    """Return `preprocess=auto` with what it leaves as it is: how files are read, and the budget."""
    return PreprocessSettings(name="auto", **{key: getattr(asked, key) for key in NOT_DECIDED})


def choose_preprocess(probes: Sequence[Probe], asked: PreprocessSettings, data: DataSettings) -> AutoChoice:
    """Return the plain settings that the probes lead to, with those of the other budgets beside them.

    Args:
        probes: Of some records.
        asked: The budget, and how files are read, which stays.
        data: Whether it names masks or centres.
    """
    has_region = "crop" in build_preprocess(replace(asked, spacing="native", shape=None), data).mask
    decide = functools.partial(decide_preprocess, probes, has_region=has_region)
    decided = decide(asked.budget)
    return AutoChoice(
        _as_settings(decided, asked),
        decided,
        {budget: decide(budget) for budget in sorted({asked.budget, *BUDGETS})},
    )


def _as_settings(decided: AutoPreprocess, asked: PreprocessSettings) -> PreprocessSettings:
    values = {**PRESETS[decided.preset], **decided.values}
    lists: dict[str, Any] = {
        key: list(value) if isinstance(value, tuple) else value for key, value in values.items()
    }
    return replace(asked, name=decided.preset, **lists)


def auto_overrides(decided: AutoPreprocess) -> list[str]:
    """Return the plain settings as overrides of a training."""
    values = [format_override(f"preprocess.{key}", _plain(value)) for key, value in decided.values.items()]
    return [f"preprocess={decided.preset}", *values]


def _plain(value: object) -> object:
    """Return a value with whole numbers written without a point."""
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def quote_for_shell(override: str) -> str:
    """Return an override as it is written in a shell."""
    return f"'{override}'" if any(mark in override for mark in "[{ ") else override


def describe_kinds(decided: AutoPreprocess) -> list[str]:
    """Return a sentence about images that look like another kind than the one decided on, if any do."""
    if not decided.others:
        return []
    counts = {decided.kind: decided.probed - sum(decided.others.values()), **decided.others}
    looks = ", ".join(f"{count} like {KIND_NAMES[kind]}" for kind, count in counts.items())
    presets = " or ".join(f"preprocess={'none' if kind == 'signed' else kind}" for kind in counts)
    reason = f" Values of {AIR_HU:g} or below are taken for CT." if "ct" in counts else ""
    return [f"By their values, {looks}.{reason} All are prepared alike: choose {presets} if this is wrong."]


def describe_choice(choice: AutoChoice, budget: int) -> list[str]:
    """Return sentences about the decision, the last with the settings that it stands for."""
    decided = choice.decided
    what = f"preprocess=auto: {decided.probed} images read; {KIND_NAMES[decided.kind]}"
    crop = ""
    if decided.values.get("foreground_crop"):
        crop = f"; the content fills {decided.content:.0%} of an image and is cropped to"
    lines = [f"{what}{crop}.", *describe_kinds(decided)]
    if decided.cropped:
        lines.append(
            f"The content of {decided.cropped} of them is larger than this grid, which cuts its border."
        )
    grids = list_grids(choice.others)
    lines.append(f"Grid (depth, height, width) by preprocess.budget, here {budget}: {grids}.")
    return [*lines, f"It stands for: {' '.join(map(quote_for_shell, auto_overrides(decided)))}"]


def list_grids(by_budget: Mapping[int, AutoPreprocess]) -> str:
    """Return the grid of each budget in words; equal ones are named together."""
    grids: dict[str, list[str]] = {}
    for one, own in by_budget.items():
        grids.setdefault(f"{_sides(own.shape)} at {_mm(own.spacing)} mm", []).append(str(one))
    return "; ".join(f"{' or '.join(budgets)}: {grid}" for grid, budgets in grids.items())


def _sides(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _mm(spacing: Sequence[float]) -> str:
    return "x".join(f"{value:.3g}" for value in spacing)


def build_preprocess(settings: PreprocessSettings, data: DataSettings) -> Preprocess:
    """Return the preprocessing of the settings.

    Raises:
        SettingsError: Settings that are invalid or contradict each other.
    """
    values = {**asdict(settings), "time_axis": data.time_axis}
    del values["name"], values["budget"]
    values["spacing"] = None if settings.spacing == "native" else settings.spacing
    values["mask"] = _mask_uses(settings, data)
    try:
        return Preprocess(**values)
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _mask_uses(settings: PreprocessSettings, data: DataSettings) -> tuple[str, ...]:
    """Return what masks or centres are for; nothing where the data have none."""
    if not data.mask_column and not data.centre_columns:
        return ()
    uses = "crop" if settings.mask is None else settings.mask
    return tuple(use for use in ([uses] if isinstance(uses, str) else uses) if use != "none")


def read_augment(augment: Mapping[str, Any]) -> Augment:
    """Return the augmentation settings as a checked value.

    Raises:
        SettingsError: A field is unknown or out of range.
    """
    fields: dict[str, Any] = {key: value for key, value in augment.items() if key != "name"}
    try:
        chosen = Augment(**fields)
        chosen.check()
    except (TypeError, ValueError) as error:
        raise SettingsError(f"augment: {error}") from error
    return chosen
