"""`training_range.json`: the ranges of a run's training volumes, written by training, read by prediction."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from voxlift.app.config import SettingsError
from voxlift.app.files import read_json, write_json
from voxlift.app.runs.folder import RunFolder
from voxlift.data_pipelines.cache.ranges import TrainingRange, VolumeSummary, find_training_range

if TYPE_CHECKING:
    from voxlift.app.data.cohort import Cohort


def write_training_range(cohort: Cohort, run: RunFolder) -> list[VolumeSummary]:
    """Write the ranges of the training split and return the summaries of its volumes.

    Args:
        cohort: With at least one training volume.
        run: The run folder.
    """
    summaries = [one.summary for one in cohort.load_metadata("train")]
    write_json(run.training_range, asdict(find_training_range(summaries)))
    return summaries


def read_training_range(run: RunFolder) -> TrainingRange | None:
    """Return the ranges that a run wrote; None for a run of a version that wrote none.

    Raises:
        SettingsError: The file is damaged.
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
            f"{run.training_range}: expected the ranges that voxlift-train writes ({error}). Remove the file"
            " to predict without warnings about unusual inputs."
        ) from error


def _pairs(values: Any) -> tuple[tuple[float, float], ...]:  # noqa: ANN401 - read from JSON
    return tuple((float(low), float(high)) for low, high in values)
