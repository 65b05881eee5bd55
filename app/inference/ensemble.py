"""Finished runs as one model: opened, checked for agreement, their scores averaged."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.data.cohort import build_preprocess
from voxlift.app.evaluation.calibration import fit_temperature
from voxlift.app.files import read_json, read_rows
from voxlift.app.inference.scores import softmax
from voxlift.app.inference.test_time_augmentation import View, build_views
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder, open_run
from voxlift.app.runs.input_ranges import read_training_range
from voxlift.app.runs.networks import load_network
from voxlift.app.runs.predictions import scores_from_rows
from voxlift.data_pipelines.cache.ranges import TrainingRange
from voxlift.data_pipelines.preprocess.settings import Preprocess

log = logging.getLogger("voxlift")


@dataclass(frozen=True)
class Member:
    """One run: its folder, its settings, and what its validation decided.

    Attributes:
        run: the folder.
        settings: its own, read from the folder.
        threshold: on the probability of class 1, of two classes; None for several.
        temperature: that divides its logits for calibrated probabilities; 1 where none could be fitted.
        seen: what its training volumes were like; None where it did not say.
    """

    run: RunFolder
    settings: TrainSettings
    threshold: float | None
    temperature: float
    seen: TrainingRange | None


@dataclass(frozen=True)
class Ensemble:
    """One run or several that share classes, preprocessing and shape."""

    members: tuple[Member, ...]
    classes: tuple[str, ...]
    preprocess: Preprocess

    @property
    def threshold(self) -> float | None:
        """The mean of the members' thresholds; None for several classes."""
        found = [member.threshold for member in self.members if member.threshold is not None]
        return float(np.mean(found)) if len(self.classes) == 2 and found else None


@dataclass(frozen=True, eq=False)
class Answer:
    """The scores of a batch.

    Attributes:
        probabilities: [B, K], the mean over members and views.
        calibrated: [B, K], the same after each member's temperature.
        spread: [B], the largest standard deviation of a class's probability over members; 0 for one member.
    """

    probabilities: NDArray[np.float64]
    calibrated: NDArray[np.float64]
    spread: NDArray[np.float64]


def open_ensemble(runs: Sequence[str]) -> Ensemble:
    """The runs' settings and what their validation decided; no network is loaded.

    Raises:
        SettingsError: a folder is no finished run, or the runs do not fit together.
    """
    members = tuple(_open_member(run) for run in runs)
    ways = [build_preprocess(one.settings.preprocess, one.settings.data) for one in members]
    first = members[0]
    problems = []
    for member, way in zip(members[1:], ways[1:], strict=True):
        problems += _differences(first, member, ways[0], way)
    if problems:
        raise SettingsError(
            "run: expected runs with the same classes and preprocessing, which alone can be averaged.\n"
            + "\n".join(problems)
        )
    return Ensemble(members, tuple(first.settings.data.classes), ways[0])


def load_networks(ensemble: Ensemble) -> tuple[Any, ...]:
    """The members' networks, from volumes [B, D, H, W, C] to logits.

    Raises:
        SettingsError: a file is damaged, or the networks take volumes of different shapes.
    """
    networks = tuple(load_network(member.run.model) for member in ensemble.members)
    shapes = {
        network.input_shape[1:]: member.run.path
        for network, member in zip(networks, ensemble.members, strict=True)
    }
    if len(shapes) > 1:
        said = "; ".join(f"{path} takes {'x'.join(map(str, shape))}" for shape, path in shapes.items())
        raise SettingsError(f"run: expected runs that take volumes of one shape; {said}.")
    return networks


def score_batch(
    ensemble: Ensemble, networks: Sequence[Any], voxels: NDArray[np.float32], views: Sequence[View]
) -> Answer:
    """The scores of volumes [B, D, H, W, C]."""
    plain, scaled = [], []
    for member, network in zip(ensemble.members, networks, strict=True):
        logits = [np.asarray(network.predict_on_batch(view(voxels)), np.float64) for view in views]
        plain.append(np.mean([softmax(one) for one in logits], axis=0))
        scaled.append(np.mean([softmax(one / member.temperature) for one in logits], axis=0))
    spread = np.std(plain, axis=0).max(axis=1)
    return Answer(np.mean(plain, axis=0), np.mean(scaled, axis=0), spread)


def decide(ensemble: Ensemble, probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    """Class indices [B]: by the threshold of two classes, else the most probable."""
    if ensemble.threshold is not None:
        return (probabilities[:, 1] >= ensemble.threshold).astype(np.int64)
    return np.asarray(probabilities.argmax(axis=1), np.int64)


def member_views(ensemble: Ensemble, tta: str) -> tuple[View, ...]:
    """The views that all members may be shown.

    Raises:
        SettingsError: one of them may not be shown them.
    """
    for member in ensemble.members[1:]:
        build_views(tta, member.settings.augment)
    mirrored = {str(dict(member.settings.augment).get("flip_prob")) for member in ensemble.members}
    if tta == "flips" and len(mirrored) > 1:
        raise SettingsError("tta=flips: the runs were trained with different mirroring; take tta=none.")
    return build_views(tta, ensemble.members[0].settings.augment)


def _open_member(path: str) -> Member:
    run = open_run(path)
    settings = load_settings(run)
    metrics = read_json(run.metrics)
    return Member(
        run, settings, metrics.get("threshold"), _temperature(run, settings), read_training_range(run)
    )


def _temperature(run: RunFolder, settings: TrainSettings) -> float:
    """The temperature of the run's validation; 1, and a sentence, where none could be fitted."""
    rows = read_rows(run.predictions)
    validation = scores_from_rows(rows, tuple(settings.data.classes), split="val")
    fitted = fit_temperature(validation)
    if fitted.at_bound:
        log.info(
            "%s: no temperature could be fitted, because validation is separated without error or not at "
            "all; its calibrated probabilities are the plain ones.",
            run.path,
        )
    return fitted.value


def _differences(first: Member, other: Member, way: Preprocess, other_way: Preprocess) -> list[str]:
    problems = []
    classes, others = first.settings.data.classes, other.settings.data.classes
    if list(classes) != list(others):
        problems.append(
            f"  classes: {', '.join(classes)} in {first.run.path}, {', '.join(others)} in {other.run.path}"
        )
    for name, value in vars(way).items():
        received = getattr(other_way, name)
        if value != received:
            problems.append(
                f"  preprocess.{name}: {value} in {first.run.path}, {received} in {other.run.path}"
            )
    channels, theirs = image_columns(first.settings), image_columns(other.settings)
    if len(channels) != len(theirs):
        problems.append(
            f"  images: {', '.join(channels)} in {first.run.path}, {', '.join(theirs)} in {other.run.path}"
        )
    return problems


def image_columns(settings: TrainSettings) -> tuple[str, ...]:
    """The table's column of each image that a run was trained with."""
    data = settings.data
    if data.name != "manifest":
        return ("file",)  # of the tables that we write ourselves
    return tuple(data.image_columns) or (data.image_column,)
