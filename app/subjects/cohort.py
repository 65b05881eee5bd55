"""A cohort: subjects with labels, a split each, and prepared volumes on disk.

Everything that can be wrong with the user's data is met here, before TensorFlow is imported and before the
first epoch.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxlift.app.progress import progress_bar
from voxlift.app.settings import SPLIT_NAMES, DataSettings, PreprocessSettings, SettingsError, TrainSettings
from voxlift.app.subjects.images import join_images
from voxlift.app.subjects.sources import load_subjects
from voxlift.app.subjects.splitting import (
    refuse_shared_voxels,
    say_splits,
    set_outer_fold_aside,
    split_subjects,
)
from voxlift.data_pipelines.cache import CachedVolumes, explain_problems, fill_cache
from voxlift.data_pipelines.manifest import Record
from voxlift.data_pipelines.prepared import PreparedVolumes
from voxlift.data_pipelines.preprocess_settings import Preprocess
from voxlift.data_pipelines.volume import VolumeError

log = logging.getLogger("voxlift")


@dataclass(frozen=True)
class Cohort:
    """Records that can be used, in manifest order, each with its split and its prepared file."""

    records: tuple[Record, ...]
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    files: tuple[Path, ...]
    shape: tuple[int, int, int, int]  # depth, height, width, channels
    dtype: str
    preprocess: Preprocess
    left_out: tuple[dict[str, str], ...] = ()  # bad files that were skipped, with the reason

    @property
    def present(self) -> tuple[str, ...]:
        """The splits that hold somebody, training first."""
        return tuple(split for split in SPLIT_NAMES if split in self.splits)

    def indices(self, split: str) -> NDArray[np.int64]:
        """Positions of one split's records."""
        return np.flatnonzero(np.array(self.splits) == split).astype(np.int64)

    def labels(self, split: str) -> NDArray[np.int64]:
        """Class indices of one split's records."""
        return np.array([self.records[i].label for i in self.indices(split)], np.int64)

    def prepared(self, split: str) -> PreparedVolumes:
        """Prepared volumes of one split's records."""
        return PreparedVolumes(tuple(self.files[i] for i in self.indices(split)), self.shape, self.dtype)


def gather_cohort(settings: TrainSettings) -> Cohort:
    """Find the subjects, split them, refuse leaks, and prepare every volume once.

    Raises:
        ManifestError, VolumeError, SettingsError: what is wrong with the data, all problems of one kind
        together.
    """
    build_preprocess(settings.preprocess, settings.data)  # refused before any file is read
    manifest = set_outer_fold_aside(load_subjects(settings.data), settings)
    splits = split_subjects(manifest, settings)
    say_splits(manifest, splits, choice=settings.splits)
    refuse_shared_voxels(manifest, splits, settings=settings)
    return prepare_cohort(manifest.records, manifest.classes, splits, settings=settings)


def prepare_cohort(
    records: Sequence[Record], classes: tuple[str, ...], splits: Sequence[str], *, settings: TrainSettings
) -> Cohort:
    """Prepare the records' volumes and keep those that can be used.

    Raises:
        VolumeError: files cannot be used and are not to be skipped, or none is left.
    """
    preprocess = build_preprocess(settings.preprocess, settings.data)
    cached = _prepare(records, preprocess, settings)
    kept = [i for i, file in enumerate(cached.files) if file is not None]
    if cached.problems and (settings.data.on_bad_file == "stop" or not kept):
        raise VolumeError(explain_problems(cached.problems, is_any_left=bool(kept)))
    return Cohort(
        records=tuple(records[i] for i in kept),
        classes=classes,
        splits=tuple(splits[i] for i in kept),
        files=tuple(file for file in cached.files if file is not None),
        shape=cached.shape,
        dtype=cached.dtype,
        preprocess=preprocess,
        left_out=_left_out_rows(records, cached, splits),
    )


def build_preprocess(settings: PreprocessSettings, data: DataSettings) -> Preprocess:
    """The preprocessing value of the settings.

    Raises:
        SettingsError: settings that make no sense together.
    """
    values = {**asdict(settings), "time_axis": data.time_axis}
    del values["name"]
    values["spacing"] = None if settings.spacing == "native" else settings.spacing
    try:
        return Preprocess(**values)
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _prepare(records: Sequence[Record], preprocess: Preprocess, settings: TrainSettings) -> CachedVolumes:
    cache = settings.cache
    with progress_bar("Preparing volumes", len(records)) as advance:
        return fill_cache(
            [record.images for record in records],
            preprocess,
            folder=Path(cache.folder),
            max_gb=cache.max_gb,
            workers=cache.workers,
            advance=advance,
            say=log.info,
        )


def _left_out_rows(
    records: Sequence[Record], cached: CachedVolumes, splits: Sequence[str]
) -> tuple[dict[str, str], ...]:
    absent = [i for i, file in enumerate(cached.files) if file is None]
    bad = [records[i] for i in absent]
    if bad:
        counts = ", ".join(f"{split} {count}" for split, count in Counter(splits[i] for i in absent).items())
        log.info("%d bad file(s) left out (%s); left_out.csv in the run folder names them", len(bad), counts)
    return tuple(
        {"subject": record.subject, "image": join_images(record.images), "reason": problem}
        for record, problem in zip(bad, cached.problems, strict=True)
    )
