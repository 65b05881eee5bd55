"""Finished runs as one model: opened, checked for compatibility, their scores averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.data.cohort import build_preprocess
from voxlift.app.files import read_json
from voxlift.app.inference.test_time_augmentation import View, build_views
from voxlift.app.runs.cohort import read_training_range
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder, open_finished_run
from voxlift.app.runs.networks import load_network
from voxlift.app.runs.results import read_temperature
from voxlift.data_pipelines.cache.metadata import TrainingRange
from voxlift.data_pipelines.preprocess.settings import Preprocess


@dataclass(frozen=True)
class EnsembleMember:
    """One run of an ensemble.

    Attributes:
        run: Its folder.
        settings: Its own settings, read from the folder.
        preprocess: Its preprocessing.
        threshold: Decision threshold on the probability of class 1; None for more than two classes, or 0.5.
        temperature: Divisor of its logits for calibrated probabilities; 1 where none could be fitted.
        training_range: Spacing, size and intensities of its training volumes; None for an older run.
    """

    run: RunFolder
    settings: TrainSettings
    preprocess: Preprocess
    threshold: float | None
    temperature: float
    training_range: TrainingRange | None


@dataclass(frozen=True)
class Ensemble:
    """One run or several that share classes, preprocessing and shape."""

    members: tuple[EnsembleMember, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in index order."""
        return tuple(self.members[0].settings.data.classes)

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing that all members share."""
        return self.members[0].preprocess

    @property
    def threshold(self) -> float | None:
        """Mean of the members' thresholds; None where the most probable class is taken."""
        thresholds = [member.threshold for member in self.members if member.threshold is not None]
        return float(np.mean(thresholds)) if len(self.classes) == 2 and thresholds else None


@dataclass(frozen=True, eq=False)
class BatchScores:
    """The scores of a batch of B volumes.

    Attributes:
        probabilities: [B, K], the mean over members and views.
        calibrated: [B, K], the same after each member's temperature.
        spread: [B], the largest standard deviation of a class's probability over members; 0 for one member.
        decisions: [B], class indices: by the threshold of two classes, else the most probable.
    """

    probabilities: NDArray[np.float64]
    calibrated: NDArray[np.float64]
    spread: NDArray[np.float64]
    decisions: NDArray[np.int64]


def open_ensemble(runs: Sequence[str]) -> Ensemble:
    """Return finished runs as an ensemble; no network is loaded.

    Args:
        runs: Paths of run folders.

    Raises:
        SettingsError: A folder is not a finished run, or the runs are not compatible.
    """
    members = tuple(_open_member(run) for run in runs)
    problems = [line for member in members[1:] for line in _find_differences(members[0], member)]
    if problems:
        raise SettingsError(
            "run: expected runs with the same classes and preprocessing; only such runs can be averaged.\n"
            + "\n".join(problems)
        )
    return Ensemble(members)


def load_networks(ensemble: Ensemble) -> tuple[Any, ...]:
    """Return the members' networks, from volumes [B, D, H, W, C] to logits [B, K].

    Raises:
        SettingsError: A file is damaged, or the networks take volumes of different shapes.
    """
    networks = tuple(load_network(member.run.network) for member in ensemble.members)
    shapes = {
        network.input_shape[1:]: member.run.path
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
    ensemble: Ensemble, networks: Sequence[Any], voxels: NDArray[np.float32], views: Sequence[View]
) -> BatchScores:
    """Return the scores of volumes [B, D, H, W, C]."""
    plain, scaled = [], []
    for member, network in zip(ensemble.members, networks, strict=True):
        logits = [np.asarray(network.predict_on_batch(view(voxels)), np.float64) for view in views]
        plain.append(np.mean([softmax(one, axis=1) for one in logits], axis=0))
        scaled.append(np.mean([softmax(one / member.temperature, axis=1) for one in logits], axis=0))
    probabilities = np.mean(plain, axis=0)
    if ensemble.threshold is None:
        decisions = probabilities.argmax(axis=1)
    else:
        decisions = probabilities[:, 1] >= ensemble.threshold
    return BatchScores(
        probabilities=probabilities,
        calibrated=np.mean(scaled, axis=0),
        spread=np.std(plain, axis=0).max(axis=1),
        decisions=decisions.astype(np.int64),
    )


def image_columns(settings: TrainSettings) -> tuple[str, ...]:
    """Return the table column of each image that a run was trained with."""
    data = settings.data
    if data.name != "manifest":
        return ("file",)  # as in the tables that Voxlift itself writes
    return tuple(data.image_columns) or (data.image_column,)


def _open_member(path: str) -> EnsembleMember:
    run = open_finished_run(path)
    settings = load_settings(run)
    return EnsembleMember(
        run=run,
        settings=settings,
        preprocess=build_preprocess(settings.preprocess, settings.data),
        threshold=read_json(run.metrics).get("threshold"),
        temperature=read_temperature(run),
        training_range=read_training_range(run),
    )


def _find_differences(first: EnsembleMember, other: EnsembleMember) -> list[str]:
    """Return one line for each difference that forbids averaging two members."""
    pairs = {"classes": [", ".join(one.settings.data.classes) for one in (first, other)]}
    for name in vars(first.preprocess):
        pairs[f"preprocess.{name}"] = [getattr(one.preprocess, name) for one in (first, other)]
    images = [image_columns(one.settings) for one in (first, other)]
    if len(images[0]) != len(images[1]):
        pairs["images"] = [", ".join(columns) for columns in images]
    return [
        f"  {name}: {one} in {first.run.path}, {two} in {other.run.path}"
        for name, (one, two) in pairs.items()
        if one != two
    ]
