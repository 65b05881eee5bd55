"""`training_range.json`: what a run's training volumes were like, written by training, read by prediction."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from voxlift.app.config import SettingsError
from voxlift.app.files import read_json, write_json
from voxlift.app.progress import progress_bar
from voxlift.app.runs.folder import RunFolder
from voxlift.data_pipelines.cache.ranges import Sketch, TrainingRange, find_range, sketch_record
from voxlift.data_pipelines.preprocess.prepare import read_record

if TYPE_CHECKING:
    from voxlift.app.data.cohort import Cohort


def write_training_range(cohort: Cohort, run: RunFolder) -> list[Sketch]:
    """Write the ranges of the training split and return its sketches, each kept beside its prepared file."""
    indices = [int(index) for index in cohort.indices("train")]
    with progress_bar("Noting what training sees", len(indices)) as advance:

        def sketch(index: int) -> Sketch:
            found = _kept_sketch(cohort, index)
            advance()
            return found

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            sketches = list(pool.map(sketch, indices))
    write_json(run.training_range, asdict(find_range(sketches)))
    return sketches


def read_training_range(run: RunFolder) -> TrainingRange | None:
    """The ranges that a run left; None for a run of a version that wrote none.

    Raises:
        SettingsError: the file is damaged.
    """
    if not run.training_range.exists():
        return None
    saved = read_json(run.training_range)
    try:
        return TrainingRange(
            volumes=int(saved["volumes"]),
            spacing=_pairs(saved["spacing"]),
            shape=_pairs(saved["shape"]),
            axcodes=dict(saved["axcodes"]),
            channels=tuple(
                {name: (float(low), float(high)) for name, (low, high) in channel.items()}
                for channel in saved["channels"]
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(
            f"{run.training_range}: expected what voxlift-train wrote there ({error}); "
            "remove the file, and prediction goes without its warnings."
        ) from error


def _kept_sketch(cohort: Cohort, index: int) -> Sketch:
    """A volume's sketch; the stored image is read again only where no run did so before."""
    file = cohort.files[index]
    kept = file.with_suffix(".sketch.json")
    known = _read_sketch(kept)
    if known is not None:
        return known
    stored = read_record(cohort.records[index].images, cohort.preprocess)
    found = sketch_record(stored, np.fromfile(file, cohort.dtype).reshape(cohort.shape))
    # A complete cache may be read-only: the next run then reads the image once more.
    with contextlib.suppress(OSError):
        write_json(kept, asdict(found))
    return found


def _read_sketch(path: Path) -> Sketch | None:
    """A sketch that an earlier run kept; None where there is none, or half of one."""
    try:
        saved: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Sketch(
            tuple(saved["spacing"]), tuple(saved["shape"]), saved["axcodes"], tuple(saved["channels"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _pairs(values: Any) -> tuple[tuple[float, float], ...]:  # noqa: ANN401 - read from JSON
    return tuple((float(low), float(high)) for low, high in values)
