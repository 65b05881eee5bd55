"""Scores of a finished run, or of several as an ensemble, on a cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.data.cohort import Cohort
from voxlift.app.evaluation.calibration import Calibration, apply_calibration
from voxlift.app.evaluation.scores import AnyPredictions, replace_fields
from voxlift.app.files import read_rows
from voxlift.app.inference.ensemble import EnsembleMember
from voxlift.app.inference.scores import score_split
from voxlift.app.progress import print_line
from voxlift.app.runs.cohort import join_new_columns, read_training_range
from voxlift.app.runs.folder import RunFolder, load_network, volume_shape
from voxlift.app.runs.results import read_scores
from voxlift.app.tasks.base import task_of
from voxlift.app.training.without_network import WITHOUT_NETWORK
from voxlift.data_pipelines.audit.prepared import find_out_of_range
from voxlift.data_pipelines.cache.format import PreparedVolumes


def score_run(
    run: RunFolder,
    settings: TrainSettings,
    cohort: Cohort,
    split: str,
    *,
    batch_size: int,
    engine: str = "tensorflow",
) -> Any:  # noqa: ANN401 - the predictions of the run's task
    """Return the scores of a split of a cohort by the model of a finished run.

    Args:
        run: With the model.
        settings: Of the run; for data other than its own, with that data.
        cohort: With no other volumes than those of the split.
        split: Of the cohort.
        batch_size: Volumes scored at once.
        engine: What computes the scores of a network, see `choose_engine`; other models are scored as always.

    Raises:
        SettingsError: The network takes volumes of another shape, or the engine cannot be used.
        ManifestError: The table lacks a column that the model takes, or a volume has no vector.
    """
    if not settings.model.has_network:
        if engine != "tensorflow":
            print_line(f"Engine: {settings.model.name} has no network to convert; it is scored as always.")
        return WITHOUT_NETWORK[settings.model.kind].score(run, settings, cohort, split)
    from voxlift.models.batch_norm import fold_batch_norm

    network = load_network(run.network)
    refuse_other_shape(volume_shape(network), cohort.shape, run)
    if cohort.columns is None:  # of other data; a cohort of the run has those of its folder
        cohort = join_new_columns(cohort, run, settings)
    scorer = fold_batch_norm(network)
    if engine != "tensorflow":
        scorer = _choose_scorer(engine, scorer, run, cohort.prepared(split), batch_size=batch_size)
    return score_split(scorer, cohort, split, batch_size=batch_size)


def _choose_scorer(
    engine: str,
    network: Any,  # noqa: ANN401 - untyped Keras
    run: RunFolder,
    volumes: PreparedVolumes,
    *,
    batch_size: int,
) -> Any:  # noqa: ANN401 - as above
    from voxlift.app.inference.engine import choose_engine  # converts networks: only where it is asked for
    from voxlift.data_pipelines.pipeline import evaluation_volumes

    first = next(iter(evaluation_volumes(volumes, batch_size=min(batch_size, len(volumes)))))
    inputs = first[0] if isinstance(first, tuple) else (first,)  # with columns: a tuple of one pair
    chosen = choose_engine(
        engine,
        network,
        run.network,
        inputs,
        volumes=len(volumes),
        training_range=read_training_range(run),
    )
    return chosen.scorer


def refuse_other_shape(expected: Sequence[int | None], received: Sequence[int], run: RunFolder) -> None:
    """Pass when a network accepts volumes of this shape (depth, height, width, channels).

    Args:
        expected: Of the network; None where any size is accepted.
        received: Of the volumes.
        run: For the message.

    Raises:
        SettingsError: It does not.
    """
    if all(own in (None, side) for own, side in zip(expected, received, strict=True)):
        return
    wanted = "x".join("any" if side is None else str(side) for side in expected)
    raise SettingsError(
        f"{run.path}: expected volumes of {wanted} (depth, height, width, channels) as in training; the new "
        f"images have {'x'.join(map(str, received))} after the run's preprocessing."
    )


def average_scores(members: Sequence[AnyPredictions]) -> AnyPredictions:
    """Return the mean predictions of several models for the same volumes."""
    predicted = members[0].predicted
    mean = np.mean([getattr(one, predicted) for one in members], axis=0)
    return replace_fields(members[0], {predicted: mean})


def calibrate_scores(members: Sequence[Any], calibrations: Sequence[Calibration]) -> Any:  # noqa: ANN401 - of classes
    """Return the mean over models of their probabilities after each one's calibration."""
    pairs = zip(members, calibrations, strict=True)
    return average_scores([apply_calibration(one, calibration) for one, calibration in pairs])


def read_internal_scores(members: Sequence[EnsembleMember], carried: Mapping[str, Any]) -> list[Any]:
    """Return the members' predictions for their own test subjects.

    They are averaged where all have the same test subjects, as over seeds; over folds each member has its
    own. Empty where a run has no test subjects.

    Args:
        members: Of the ensemble.
        carried: As `Task.carry_over` gives it, for averaged predictions.
    """
    splits = [read_test_scores(member.run) for member in members]
    found = [one for one in splits if one is not None]
    if len(found) < len(splits):
        return []
    if len(found) > 1 and all(one.keys == found[0].keys for one in found):
        return [task_of(members[0].settings).decide(average_scores(found), carried)]
    return found


def read_test_scores(run: RunFolder) -> Any:  # noqa: ANN401 - the task's own class, or None
    """Return a run's predictions for its test subjects; None where it has none."""
    has_test = any(row["split"] == "test" for row in read_rows(run.predictions))
    return read_scores(run, split="test") if has_test else None


def find_unusual(cohort: Cohort, members: Sequence[EnsembleMember]) -> list[str]:
    """Return for each volume what lies outside the training range of any member; empty for nothing."""
    ranges = [member.training_range for member in members if member.training_range is not None]
    return [
        "; ".join(
            dict.fromkeys(
                phrase for training in ranges for phrase in find_out_of_range(metadata.summary, training)
            )
        )
        for metadata in cohort.load_metadata()
    ]
