"""Finished runs as one model: opened, checked for compatibility, their scores averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.data.sources import build_preprocess
from voxlift.app.evaluation.calibration import Calibration
from voxlift.app.files import read_json
from voxlift.app.inference.test_time_augmentation import View, build_views
from voxlift.app.runs.cohort import load_joined_encoder, read_training_range
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder, load_network, open_finished_run, volume_shape
from voxlift.app.runs.results import read_calibration
from voxlift.app.tasks.base import task_of
from voxlift.data_pipelines.audit.prepared import TrainingRange
from voxlift.data_pipelines.preprocess.settings import Preprocess

if TYPE_CHECKING:
    from voxlift.app.data.columns import ColumnEncoder
    from voxlift.app.tasks.base import Task


@dataclass(frozen=True)
class EnsembleMember:
    """One run of an ensemble.

    Attributes:
        run: Its folder.
        settings: Its own settings, read from the folder.
        preprocess: Its preprocessing.
        thresholds: Chosen on validation: on the probability of class 1, or one for each finding; empty: none.
        calibration: Of its logits for calibrated probabilities; neutral where none could be fitted, None for
            predictions other than of classes.
        training_range: Spacing, size and intensities of its training volumes; None for an older run.
        encoder: How its network takes columns of the table; None where it takes none.
    """

    run: RunFolder
    settings: TrainSettings
    preprocess: Preprocess
    thresholds: tuple[float, ...]
    calibration: Calibration | None
    training_range: TrainingRange | None
    encoder: ColumnEncoder | None = None

    @property
    def threshold(self) -> float | None:
        """Decision threshold of two classes; None where none was chosen."""
        return self.thresholds[0] if task_of(self.settings).is_nominal and self.thresholds else None


@dataclass(frozen=True)
class Ensemble:
    """One run or several that share task, classes, preprocessing and shape."""

    members: tuple[EnsembleMember, ...]

    @property
    def task(self) -> Task:
        """What the members predict."""
        return task_of(self.members[0].settings)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the outputs in index order: of the classes, the findings, or the number."""
        return self.task.names(self.members[0].settings.data)

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing that all members share."""
        return self.members[0].preprocess

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Mean of the members' thresholds; empty where none decides."""
        chosen = [member.thresholds for member in self.members if member.thresholds]
        return tuple(map(float, np.mean(chosen, axis=0))) if chosen else ()

    @property
    def threshold(self) -> float | None:
        """Mean of the members' thresholds of two classes; None where the most probable class is taken."""
        return self.thresholds[0] if self.task.is_nominal and self.thresholds else None

    @property
    def rule(self) -> str:
        """How a scan is decided, or that a number is predicted, as a sentence without its full stop."""
        kind = "Decision" if self.task.has_probabilities else "Prediction"
        return f"{kind}: {self.task.describe_decision(self.classes, self.thresholds)}"

    @property
    def joined_columns(self) -> tuple[str, ...]:
        """Columns of the table that members take beside the images, each once."""
        encoders = [member.encoder for member in self.members if member.encoder is not None]
        return tuple(dict.fromkeys(name for encoder in encoders for name in encoder.names))

    def encode(self, member: EnsembleMember, cells: Sequence[Sequence[str]]) -> NDArray[np.float32] | None:
        """Return the columns [B, F] as a member takes them; None where it takes none.

        Args:
            member: Of the ensemble.
            cells: Of each subject the text of `joined_columns`.
        """
        if member.encoder is None:
            return None
        places = [self.joined_columns.index(name) for name in member.encoder.names]
        own = np.array([[row[place] for place in places] for row in cells], object)
        return member.encoder.encode(own).astype(np.float32)

    def find_unusual_cells(self, cells: Sequence[str]) -> list[str]:
        """Return what the training of any member has not seen of a subject's columns, each phrase once."""
        named = dict(zip(self.joined_columns, cells, strict=True))
        encoders = [member.encoder for member in self.members if member.encoder is not None]
        return list(
            dict.fromkeys(
                phrase
                for encoder in encoders
                for phrase in encoder.find_unusual([named[name] for name in encoder.names])
            )
        )

    @property
    def calibrations(self) -> list[Calibration]:
        """The calibration of each member; none for predictions other than of classes."""
        return [member.calibration for member in self.members if member.calibration is not None]


@dataclass(frozen=True, eq=False)
class BatchScores:
    """The scores of a batch of B volumes.

    Attributes:
        predictions: [B, K], probabilities or numbers, the mean over members and views.
        calibrated: [B, K], probabilities of classes after each member's calibration; None for other tasks.
        spread: [B], the largest standard deviation of a prediction over members; 0 for one member.
        decisions: [B] class indices, or [B, K] findings, see `Task.decide_rows`.
    """

    predictions: NDArray[np.float64]
    calibrated: NDArray[np.float64] | None
    spread: NDArray[np.float64]
    decisions: NDArray[np.int64]


def open_ensemble(runs: Sequence[str], *, allow_table: bool = False) -> Ensemble:
    """Return finished runs as an ensemble; no network is loaded.

    Args:
        runs: Paths of run folders.
        allow_table: Whether runs may be regressions on columns of the table, which take no image.

    Raises:
        SettingsError: A folder is not a finished run, or the runs are not compatible.
    """
    members = tuple(_open_member(run, allow_table=allow_table) for run in runs)
    problems = [line for member in members[1:] for line in _find_differences(members[0], member)]
    if problems:
        raise SettingsError(
            "run: expected runs with the same task, classes and preprocessing; only such runs can be "
            "averaged.\n" + "\n".join(problems)
        )
    return Ensemble(members)


def load_networks(ensemble: Ensemble) -> tuple[Any, ...]:
    """Return the members' networks, from volumes [B, D, H, W, C] to outputs [B, K].

    Raises:
        SettingsError: A file is damaged, or the networks take volumes of different shapes.
    """
    networks = tuple(load_network(member.run.network) for member in ensemble.members)
    shapes = {
        volume_shape(network): member.run.path
        for network, member in zip(networks, ensemble.members, strict=True)
    }
    if len(shapes) > 1:
        found = "; ".join(f"{path} takes {'x'.join(map(str, shape))}" for shape, path in shapes.items())
        raise SettingsError(f"run: expected runs that take volumes of the same shape; {found}.")
    return networks


def build_member_views(ensemble: Ensemble, tta: str) -> tuple[View, ...]:
    """Return the views of test-time augmentation that are valid for all members.

    Raises:
        SettingsError: A member was trained without the mirroring that the views need, or with another one.
    """
    views = [build_views(tta, member.settings.augment) for member in ensemble.members]
    mirroring = {str(dict(member.settings.augment).get("flip_prob")) for member in ensemble.members}
    if tta == "flips" and len(mirroring) > 1:
        raise SettingsError("tta=flips: the runs were trained with different mirroring; use tta=none.")
    return views[0]


def score_batch(
    ensemble: Ensemble,
    networks: Sequence[Any],
    voxels: NDArray[np.float32],
    views: Sequence[View],
    *,
    cells: Sequence[Sequence[str]] = (),
) -> BatchScores:
    """Return the scores of volumes [B, D, H, W, C].

    Args:
        ensemble: The runs.
        networks: Of the members.
        voxels: Of the volumes.
        views: Of test-time augmentation.
        cells: Of each volume the text of `Ensemble.joined_columns`.
    """
    from voxlift.models.join import with_columns  # Keras: only with networks

    task = ensemble.task
    plain, scaled = [], []
    for member, network in zip(ensemble.members, networks, strict=True):
        columns = ensemble.encode(member, cells)
        outputs = [
            np.asarray(network.predict_on_batch(with_columns(view(voxels), columns)), np.float64)
            for view in views
        ]
        plain.append(np.mean([task.predict(one) for one in outputs], axis=0))
        if member.calibration is not None:
            scaled.append(np.mean([task.predict(member.calibration.scale(one)) for one in outputs], axis=0))
    predictions = np.mean(plain, axis=0)
    return BatchScores(
        predictions=predictions,
        calibrated=np.mean(scaled, axis=0) if scaled else None,
        spread=np.std(plain, axis=0).max(axis=1),
        decisions=task.decide_rows(predictions, ensemble.thresholds),
    )


def image_columns(settings: TrainSettings) -> tuple[str, ...]:
    """Return the table column of each image that a run was trained with."""
    data = settings.data
    if data.name != "manifest":
        return ("file",)  # as in the tables that Voxlift itself writes
    return tuple(data.image_columns) or (data.image_column,)


def _open_member(path: str, *, allow_table: bool) -> EnsembleMember:
    run = open_finished_run(path, allow_table=allow_table)
    settings = load_settings(run)
    task = task_of(settings)
    return EnsembleMember(
        run=run,
        settings=settings,
        preprocess=build_preprocess(settings.preprocess, settings.data),
        thresholds=task.thresholds(read_json(run.metrics)),
        calibration=read_calibration(run) if task.is_nominal else None,
        training_range=read_training_range(run),
        encoder=load_joined_encoder(run, settings),
    )


def _find_differences(first: EnsembleMember, other: EnsembleMember) -> list[str]:
    """Return one line for each difference that forbids averaging two members."""
    both = (first, other)
    pairs = {"task": [one.settings.task.name for one in both]}
    pairs["classes"] = [", ".join(task_of(one.settings).names(one.settings.data)) for one in both]
    for name in vars(first.preprocess):
        pairs[f"preprocess.{name}"] = [getattr(one.preprocess, name) for one in (first, other)]
    images = [image_columns(one.settings) for one in (first, other)]
    if len(images[0]) != len(images[1]):
        pairs["images"] = [", ".join(columns) for columns in images]
    if first.preprocess.mask:
        pairs["regions"] = ["masks" if one.settings.data.mask_column else "centres" for one in both]
    return [
        f"  {name}: {one} in {first.run.path}, {two} in {other.run.path}"
        for name, (one, two) in pairs.items()
        if one != two
    ]
