"""External data: how the new table is read, and that nobody in it was trained on."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from voxlift.app.config import ExternalDataSettings, SettingsError, TrainSettings
from voxlift.app.data.cohort import Cohort, prepare_cohort
from voxlift.app.data.sources import load_subjects
from voxlift.app.files import read_json, read_rows
from voxlift.app.runs.cohort import reopen_split
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.tasks.base import task_of
from voxlift.data_pipelines.errors import list_some
from voxlift.data_pipelines.files import find_real_path
from voxlift.data_pipelines.readers.identity import is_comparable
from voxlift.data_pipelines.tables.manifest import Manifest, split_item
from voxlift.data_pipelines.tables.subjects import find_similar_subjects
from voxlift.data_pipelines.volume import VolumeError

log = logging.getLogger("voxlift")

EXTERNAL = "external"  # the split of every volume of the new table
# Validation has chosen the epoch, the temperature and the threshold; calibration the prediction sets.
TRAINED = ("train", "val", "calibration")


@dataclass
class TrainedVolumes:
    """Who and what runs were trained and validated on, each with a text that names the split and the run.

    Attributes:
        subjects: Subject name to split and run.
        files: Real path of an image file to subject, split and run.
        voxels: Hash of an image's voxels to subject, split and run.
        notes: Sentences on what could not be compared.
    """

    subjects: dict[str, str] = field(default_factory=dict)
    files: dict[Path, str] = field(default_factory=dict)
    voxels: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def build_external_settings(own: TrainSettings, asked: ExternalDataSettings) -> TrainSettings:
    """Return a run's settings with the data of the new table; what is not asked for is as in the run.

    Every row of the new table is scored: a split column of the run is not used.

    Raises:
        SettingsError: The names of the classes do not fit the run's.
    """
    data = own.data
    if data.name != "manifest":  # the run's images are ours, and so are the names of its columns
        data = replace(
            data,
            name="manifest",
            task=None,
            subjects=None,
            npz=None,
            image_column="file",
            label_column="label",
            subject_column="participant_id",
        )
    given: dict[str, Any] = {name: value for name, value in vars(asked).items() if value is not None}
    if asked.image_column is not None and asked.image_columns is None:
        given["image_columns"] = []
    _refuse_other_names(own, asked)
    return replace(own, data=replace(data, split_column=None, **given))


def _refuse_other_names(own: TrainSettings, asked: ExternalDataSettings) -> None:
    """Pass when the table has as many names of classes, or columns of findings, as the run.

    Raises:
        SettingsError: It has more or fewer.
    """
    for key in ("classes", "label_columns"):
        given, expected = getattr(asked, key), getattr(own.data, key)
        if given is not None and len(given) != len(expected):
            wanted = f"the names of {', '.join(expected)} in this order" if expected else "no such key"
            raise SettingsError(
                f"data.{key}: expected {wanted} as the table has them; received {', '.join(given)}."
            )


def load_external(settings: TrainSettings, classes: Sequence[str]) -> Manifest:
    """Return the records of the new table, with the run's names of the classes.

    Raises:
        ManifestError: The table cannot be used.
    """
    return replace(load_subjects(settings.data, task_of(settings), allow_absent=True), classes=tuple(classes))


def describe_class_names(manifest: Manifest, names: Sequence[str]) -> list[str]:
    """Return which name counts as which class, and a class that the table may only spell otherwise.

    Args:
        manifest: The new table, with the run's classes.
        names: Of these classes in the table; empty: the same.
    """
    if manifest.target != "classes" or len(names) not in {0, len(manifest.classes)}:
        return []
    pairs = list(zip(names, manifest.classes, strict=False))
    renamed = [f"{theirs} counts as {ours}" for theirs, ours in pairs if theirs != ours]
    sentences = [f"Classes of {manifest.source}: {', '.join(renamed)}."] if renamed else []
    found = {record.label for record in manifest.records}
    absent = [name for label, name in enumerate(manifest.classes) if label not in found]
    if absent and any("is not a class" in reason for reason in manifest.left_out):
        ordered = f"the table's names of {', '.join(manifest.classes)}, in this order"
        sentences.append(
            f"No row of {manifest.source} is of class {' or '.join(absent)}. If the table spells it "
            f"otherwise, set data.classes to {ordered}."
        )
    return sentences


def prepare_external(manifest: Manifest, settings: TrainSettings) -> Cohort:
    """Return the new volumes as a cohort of the single split `external`, prepared as the run's were.

    Raises:
        VolumeError: Images cannot be used.
    """
    splits = (EXTERNAL,) * len(manifest.records)
    return prepare_cohort(manifest.records, manifest.classes, splits, settings=settings)


def find_trained_volumes(runs: Iterable[RunFolder]) -> TrainedVolumes:
    """Return the training and validation volumes of runs, and of the runs that their networks come from."""
    found = TrainedVolumes()
    for run in runs:
        for source in _with_sources(run, found.notes):
            _add_run(source, found)
    return found


def refuse_trained_names(manifest: Manifest, trained: TrainedVolumes, *, compare_names: bool) -> None:
    """Raise an error if a subject's name or an image file of the new table was trained on.

    Args:
        manifest: The new table.
        trained: Of the runs.
        compare_names: Whether an equal name means the same person.

    Raises:
        SettingsError: With the subjects and files.
    """
    names = list(dict.fromkeys(record.subject for record in manifest.records))
    seen = [f"{name} ({trained.subjects[name]})" for name in names if name in trained.subjects]
    if seen and compare_names:
        raise SettingsError(
            f"{manifest.source}: {len(seen)} of its {len(names)} subjects were trained or validated on: "
            f"{list_some(seen)}. Leave them out. If equal names mean different persons, set "
            "evaluation.same_names=ignore; files and voxels are still compared."
        )
    files = [
        f"{image} of {record.subject} ({trained.files[real]})"
        for record in manifest.records
        for image in record.images
        if (real := find_real_path(image)) in trained.files
    ]
    if files:
        raise SettingsError(
            f"{manifest.source}: {len(files)} of its images were trained or validated on: "
            f"{list_some(files)}. Leave these subjects out."
        )
    if compare_names:
        _warn_of_similar(names, trained)


def refuse_trained_voxels(cohort: Cohort, trained: TrainedVolumes, source: Path) -> None:
    """Raise an error if an image shows the voxels of one that was trained on, whatever its name.

    Raises:
        SettingsError: With the images and subjects.
    """
    copies = [
        f"{image} of {record.subject} shows the voxels of {trained.voxels[digest]}"
        for record, metadata in zip(cohort.records, cohort.load_metadata(), strict=True)
        for image, digest in zip(record.images, metadata.voxel_hashes, strict=True)
        if digest in trained.voxels
    ]
    if copies:
        raise SettingsError(
            f"{source}: {len(copies)} of its images are copies of images that were trained or validated on: "
            f"{list_some(copies)}. Leave these subjects out."
        )


def _warn_of_similar(names: Sequence[str], trained: TrainedVolumes) -> None:
    groups = find_similar_subjects([*names, *trained.subjects])
    own = set(names)
    alike = [group for group in groups if own & set(group) and own < own | set(group)]
    if alike:
        listed = list_some((" and ".join(map(repr, group)) for group in alike), limit=5)
        log.warning(
            "Subjects of the new table and of the training have names that are alike but for their writing, "
            "and count as different persons: %s.",
            listed,
        )


def _with_sources(run: RunFolder, notes: list[str]) -> Iterator[RunFolder]:
    """Yield a run, and the runs whose trained networks it began with."""
    current, seen = run, set[Path]()
    while current.path.resolve() not in seen:
        seen.add(current.path.resolve())
        yield current
        if not current.config.exists():
            return
        baseline = Path(load_settings(current).model.baseline).expanduser()
        if (baseline / "splits.csv").is_file():
            current = RunFolder(baseline)
        elif baseline.suffix == ".keras" or len(baseline.parts) > 1:
            notes.append(
                f"{run.path.name} began with the network {baseline}; it is not known who that was trained on."
            )
            return


def _add_run(run: RunFolder, found: TrainedVolumes) -> None:
    rows = [row for row in read_rows(run.splits) if row["split"] in TRAINED]
    for row in rows:
        where = f"{row['split']} of {run.path.name}"
        found.subjects.setdefault(row["subject"], where)
        for image in split_item(row["image"]):
            found.files.setdefault(find_real_path(image), f"{row['subject']}, {where}")
    texts = {row["image"]: f"{row['subject']}, {row['split']} of {run.path.name}" for row in rows}
    if not _add_saved_hashes(run, texts, found):
        _add_computed_hashes(run, texts, found, splits=tuple({row["split"]: None for row in rows}))


def _add_saved_hashes(run: RunFolder, texts: Mapping[str, str], found: TrainedVolumes) -> bool:
    """Add the files and hashes that a run saved; return whether hashes of now can be compared with them."""
    saved = read_json(run.images) if run.images.exists() else {}
    known = {name: one for name, one in saved.items() if name in texts and isinstance(one, dict)}
    hashes: dict[str, str] = {}
    for name, one in known.items():
        for file in one.get("files", ()):
            found.files.setdefault(Path(str(file[0])), texts[name])
        digests = (digest for digest in str(one.get("voxels", "")).split("+") if digest)
        hashes |= {digest: texts[name] for digest in digests if not digest.startswith("blank ")}
    if not known or not is_comparable(hashes):
        return False
    for digest, text in hashes.items():
        found.voxels.setdefault(digest, text)
    return True


def _add_computed_hashes(
    run: RunFolder, texts: Mapping[str, str], found: TrainedVolumes, *, splits: Sequence[str]
) -> None:
    """Hash the images of a run that saved no hashes of this kind; a note where they are no longer there."""
    try:
        for split in splits:
            cohort = reopen_split(load_settings(run), run, split=split)
            for record, metadata in zip(cohort.records, cohort.load_metadata(), strict=True):
                for digest in metadata.voxel_hashes:
                    if digest is not None:
                        found.voxels.setdefault(digest, f"{record.subject}, {split} of {run.path.name}")
    except (SettingsError, VolumeError, OSError) as error:
        found.notes.append(
            f"{run.path.name} saved no hashes of its images that can be compared, and they cannot be read "
            f"now ({error}): the new images were compared with its {len(texts)} by name only, not by voxels."
        )
