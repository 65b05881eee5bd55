"""Results of a run, read from its folder: history, scores, calibration, and whether the model has learnt."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from numpy.typing import NDArray

from voxlift.app.config import EvaluationSettings, SettingsError, TrainSettings
from voxlift.app.errors import shorten
from voxlift.app.evaluation.bootstrap import bootstrap_intervals
from voxlift.app.evaluation.calibration import Calibration, explain_no_calibration, fit_calibration
from voxlift.app.evaluation.metric_names import metric_label
from voxlift.app.evaluation.metrics import score_metrics
from voxlift.app.evaluation.scores import Predictions
from voxlift.app.files import read_json, read_rows, write_json
from voxlift.app.runs.configuration import describe_extensions, load_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.subjects import AXES
from voxlift.app.tasks.base import ScoredRows, Task, find_task, task_of
from voxlift.data_pipelines.tables.manifest import Record

log = logging.getLogger("voxlift")

FIRST_EPOCH = 1  # `first_epoch` of metrics.json; runs of versions that counted from 0 lack it
CLASSES = find_task("classes")
CHANCE = {"kappa_quadratic": 0.0, "auc": 0.5, "r2": 0.0}  # of the first that a task has; 1 is perfect
RESAMPLES = 200  # for a rule of thumb
LITTLE = 0.3  # of the way from chance to perfect: a training score below has hardly been learnt
GAP = 0.1  # between training and validation that matters
NOTABLY = 1.05  # of a spacing: rounding makes smaller differences
MIN_SUBJECTS = 10  # of training, and of validation 5, below which the state is unknown


def find_best_epoch(cost: Mapping[str, Any]) -> int | None:
    """Return the best epoch, counted from 1, of a block `cost` of metrics.json; None where there is none."""
    best = cost.get("best_epoch")
    if not isinstance(best, int | float):
        return None
    number = int(best) + FIRST_EPOCH - int(cost.get("first_epoch", 0))
    return number if number >= FIRST_EPOCH else None


def count_epochs(cost: Mapping[str, Any]) -> dict[str, Any]:
    """Return a block `cost` of metrics.json with the best epoch counted from 1, and without `first_epoch`."""
    best = find_best_epoch(cost)
    known = {key: value for key, value in cost.items() if key not in ("best_epoch", "first_epoch")}
    return known if best is None else {**known, "best_epoch": best}


def read_history(run: RunFolder) -> list[dict[str, str]]:
    """Return one row per epoch, all values as text; no rows for a run without epochs."""
    return read_rows(run.history) if run.history.exists() else []


def read_scores(run: RunFolder, *, split: str, evaluation: EvaluationSettings | None = None) -> Any:  # noqa: ANN401 - the task's own class
    """Return the scores of a finished run on one split, with the threshold chosen on its validation.

    Args:
        run: The folder.
        split: `train`, `val` or `test`.
        evaluation: Which metrics they have; None: those of the run.

    Raises:
        SettingsError: A value in the files is damaged.
    """
    settings = load_settings(run)
    task = task_of(settings if evaluation is None else replace(settings, evaluation=evaluation))
    try:
        rows = read_rows(run.predictions)
        scores = scores_from_rows(rows, task.names(settings.data), split=split, task=task)
        return task.decide(scores, read_json(run.metrics))
    except (ValueError, TypeError, KeyError) as error:
        if isinstance(error, SettingsError):  # it names the file already
            raise
        raise SettingsError(
            f"{run.predictions} or {run.metrics.name} is damaged: {shorten(error)}. Restore it, or train the"
            " run again."
        ) from error


def read_ablation(run: RunFolder) -> dict[str, Any]:
    """Return the scores of `ablation.csv` by what is blanked; nothing for a run of images alone.

    Raises:
        SettingsError: A value in the files is damaged.
    """
    if not run.ablation.exists():
        return {}
    settings, rows = load_settings(run), read_rows(run.ablation)
    task, metrics = task_of(settings), read_json(run.metrics)
    try:
        return {
            name: task.decide(
                scores_from_rows(rows, task.names(settings.data), split=name, task=task), metrics
            )
            for name in dict.fromkeys(row["split"] for row in rows)
        }
    except (ValueError, TypeError, KeyError) as error:
        raise SettingsError(
            f"{run.ablation} is damaged: {shorten(error)}. Restore it, or train the run again."
        ) from error


def read_calibration(run: RunFolder) -> Calibration:
    """Return the calibration fitted on the validation of a finished run; a neutral one where none could be.

    Only classes have one.
    """
    metrics = read_json(run.metrics)
    calibration = metrics.get("calibration")
    if "task" in metrics:
        return Calibration()
    if calibration is None:  # a run of a version that saved none
        fitted = fit_calibration(read_scores(run, split="val"))
        calibration = fitted.value.as_json() | {"at_bound": fitted.at_bound}
    if calibration["at_bound"]:
        log.info(
            "%s: no temperature could be fitted, since %s; the calibrated probabilities equal the "
            "uncalibrated ones.",
            run.path,
            explain_no_calibration(read_scores(run, split="val")),
        )
    return Calibration.from_json(calibration)


def prediction_rows(scores: Mapping[str, Predictions], task: Task = CLASSES) -> list[dict[str, Any]]:
    """Return the rows of `predictions.csv`: subject, image, split, then the task's labels and predictions."""
    return [
        {"subject": subject, "image": image, "split": split, **cells}
        for split, own in scores.items()
        for subject, image, cells in zip(own.subjects, own.items, task.prediction_cells(own), strict=True)
    ]


def scores_from_rows(
    rows: Sequence[Mapping[str, str]], names: tuple[str, ...], *, split: str, task: Task = CLASSES
) -> Any:  # noqa: ANN401 - the task's own class
    """Return the scores of one split from rows of `predictions.csv`, the inverse of `prediction_rows`.

    Args:
        rows: Of all splits.
        names: Of the run's outputs.
        split: `train`, `val` or `test`.
        task: Of the run.
    """
    own = [row for row in rows if row["split"] == split]
    scored = ScoredRows(
        subjects=tuple(row["subject"] for row in own),
        items=tuple(row["image"] for row in own),
        labels=_read_labels(own, task, names),
        training=_read_labels([row for row in rows if row["split"] == "train"], task, names),
    )
    return task.build_scores(scored, task.read_predictions(own, names), names)


def _read_labels(rows: Sequence[Mapping[str, str]], task: Task, names: tuple[str, ...]) -> NDArray[Any]:
    labels = [task.read_label(row, names) for row in rows]
    return task.labels([Record("", (), label, None, 0, targets) for label, targets in labels])


def write_learning(
    run: RunFolder, settings: TrainSettings, *, scores: Mapping[str, Any], cost: Mapping[str, Any]
) -> list[str]:
    """Write `learning.json` and return its sentences; none where no training or validation scores are known.

    Args:
        run: Its folder.
        settings: Of the run.
        scores: Of each split.
        cost: Of the fit, with the best epoch for a network.
    """
    if "train" not in scores or "val" not in scores:
        return []
    best = find_best_epoch(cost)
    found = assess_learning(
        scores["train"],
        scores["val"],
        best_epoch=best,
        epochs=None if best is None else len(read_history(run)),
        overfit_losses=_read_overfit_losses(run),
    )
    write_json(run.learning, found.as_json())
    return read_learning(run, settings)


def read_learning(run: RunFolder, settings: TrainSettings) -> list[str]:
    """Return sentences on whether the model learnt, and whether it was resumed for more epochs."""
    found = read_json(run.learning) if run.learning.exists() else {}
    sentences = describe_learning(
        found,
        augment=str(settings.augment.get("name", "")),
        has_network=settings.model.has_network,
        has_filters=settings.model.has_stages,
        is_coarser=_is_coarser_than_files(run, settings.preprocess.spacing),
    )
    return [*sentences, *describe_extensions(run)]


def _is_coarser_than_files(run: RunFolder, spacing: Any) -> bool:  # noqa: ANN401 - as the schema has it
    """Return whether a run's grid is coarser than most of its files along an axis."""
    rows = read_rows(run.subjects) if run.subjects.exists() else []
    names = [f"header.spacing.{axis}" for axis in AXES]
    if not isinstance(spacing, list) or not rows or not all(rows[0].get(name) for name in names):
        return False
    stored = [statistics.median(float(row[name]) for row in rows if row[name]) for name in names]
    return any(own > NOTABLY * file for own, file in zip(spacing, stored, strict=True))


def _read_overfit_losses(run: RunFolder) -> list[float] | None:
    reports = read_json(run.preflight).get("trainings", []) if run.preflight.exists() else []
    losses = reports[-1].get("overfit_losses") if reports else None
    return [float(loss) for loss in losses] if losses else None


@dataclass(frozen=True)
class Learning:
    """How training and validation scores compare.

    Attributes:
        metric: Name of the metric.
        train: On the training subjects, without augmentation.
        train_interval: 95 %, over subjects.
        val: On the validation subjects.
        val_interval: 95 %, over subjects.
        chance: Value of the metric without learning.
        state: `underfits`, `overfits`, `neither`, or `unknown` where there are too few subjects.
        best_epoch: From 1; None for a model without epochs.
        epochs: That were trained.
        overfit_loss: That the check on one batch reached; None where it was not made.
        train_loss: On the training subjects; None where the task has no log loss.
    """

    metric: str
    train: float | None
    train_interval: tuple[float, float] | None
    val: float | None
    val_interval: tuple[float, float] | None
    chance: float
    state: str
    best_epoch: int | None = None
    epochs: int | None = None
    overfit_loss: float | None = None
    train_loss: float | None = None

    @property
    def best_is_last(self) -> bool:
        """Whether the score was still rising when the training ended."""
        return self.epochs is not None and self.epochs > 1 and self.best_epoch == self.epochs

    def as_json(self) -> dict[str, Any]:
        """Return all values, for `learning.json`."""
        return {**asdict(self), "best_is_last": self.best_is_last}


def assess_learning(
    train: Predictions,
    val: Predictions,
    *,
    best_epoch: int | None = None,
    epochs: int | None = None,
    overfit_losses: Sequence[float] | None = None,
) -> Learning:
    """Return how the scores of training and validation compare.

    Args:
        train: Scores of the training subjects, without augmentation.
        val: Of the validation subjects.
        best_epoch: From 1; None for a model without epochs.
        epochs: That were trained.
        overfit_losses: Of the steps on one batch in the preflight, where it was made.
    """
    values, others = score_metrics(train), score_metrics(val)
    metric = next(name for name in CHANCE if name in values)
    mine, theirs = values.get(metric), others.get(metric)
    intervals = [bootstrap_intervals(one, resamples=RESAMPLES).get(metric) for one in (train, val)]
    enough = len(set(train.subjects)) >= MIN_SUBJECTS and len(set(val.subjects)) >= MIN_SUBJECTS // 2
    state = _judge(_number(mine), _number(theirs), _pair(intervals[0]), _pair(intervals[1]), CHANCE[metric])
    return Learning(
        metric,
        _number(mine),
        _pair(intervals[0]),
        _number(theirs),
        _pair(intervals[1]),
        CHANCE[metric],
        state if enough else "unknown",
        best_epoch,
        epochs,
        float(overfit_losses[-1]) if overfit_losses else None,
        _number(values.get("log_loss")),
    )


def _judge(
    train: float | None,
    val: float | None,
    train_interval: tuple[float, float] | None,
    val_interval: tuple[float, float] | None,
    chance: float,
) -> str:
    if train is None or val is None or train_interval is None or val_interval is None:
        return "unknown"
    if train_interval[0] <= chance or train < chance + LITTLE * (1 - chance):
        return "underfits"
    return "overfits" if train - val > GAP and val_interval[1] < train_interval[0] else "neither"


def describe_learning(
    found: Mapping[str, Any],
    *,
    augment: str = "",
    has_network: bool = True,
    has_filters: bool = True,
    is_coarser: bool = True,
) -> list[str]:
    """Return sentences about the content of `learning.json`, with what to try next.

    Args:
        found: Its content.
        augment: Name of the augmentation, `none` for none.
        has_network: Whether there are epochs, augmentation and layers to change.
        has_filters: Whether the network reads `model.filters`.
        is_coarser: Whether the grid is coarser than that of the files.
    """
    if found.get("train") is None:
        return []
    sentences = [_compare(found)]
    if has_network:
        sentences += _suggest(found, augment, has_filters=has_filters, is_coarser=is_coarser)
    if found.get("best_is_last"):
        sentences.append(
            f"The best epoch was the last ({found['best_epoch']} of {found['epochs']}): train longer, with a "
            f"higher trainer.epochs."
        )
    return sentences


def _compare(found: Mapping[str, Any]) -> str:
    name = metric_label(str(found["metric"]))
    scores = f"{name} {_text(found['train'])} on the training subjects without augmentation"
    scores += f", {_text(found['val'])} on validation"
    states = {
        "underfits": "The model underfits: it has hardly learnt its own training subjects",
        "overfits": "The model overfits: what it has learnt holds for its training subjects far more than "
        "for others",
        "neither": "The model neither underfits nor clearly overfits",
    }
    state = states.get(str(found["state"]), "There are too few subjects to tell whether the model underfits")
    return f"{state}: {scores}." if found["state"] == "unknown" else f"{state} ({scores})."


def _suggest(found: Mapping[str, Any], augment: str, *, has_filters: bool, is_coarser: bool) -> list[str]:
    filters = {"underfits": "larger model.filters", "overfits": "smaller model.filters"}
    last = filters.get(str(found["state"]), "") if has_filters else ""
    if found["state"] == "underfits":
        weaker = (
            f" augment=none, since the interpolation of augment={augment} blurs structures of a few voxels;"
            if augment not in ("", "none")
            else ""
        )
        learnt = _describe_batch(found)
        finer = "a finer grid (preprocess.budget=96, or a smaller preprocess.spacing)" if is_coarser else ""
        others = ["more trainer.epochs", "a higher optimizer.learning_rate", finer, last]
        return [f"{learnt}Try:{weaker} {'; '.join(filter(None, others))}; and look at some labels."]
    if found["state"] == "overfits":
        more = " augment=light or strong;" if augment == "none" else ""
        first = f"Try:{more} more subjects; trained weights (experiment=inflated, model.weights); "
        others = ["a higher model.dropout or optimizer.weight_decay", last]
        return [f"{first}{'; '.join(filter(None, others))}."]
    return []


def _describe_batch(found: Mapping[str, Any]) -> str:
    reached, loss = found.get("overfit_loss"), found.get("train_loss")
    if reached is None:
        return "preflight.overfit_batch=true shows whether it can learn one batch at all. "
    if loss is None:
        return f"The check on one batch reached a loss of {reached:.3g}: the network can learn. "
    return (
        f"The check on one batch reached a loss of {reached:.3g}, the training subjects have {loss:.3g}: the "
        "network can learn, so that epochs, augmentation or labels are at fault. "
    )


def _text(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "unknown"


def _number(value: Any) -> float | None:  # noqa: ANN401 - a metric of any task
    number = None if value is None else float(value)
    return number if number is not None and number == number else None  # noqa: PLR0124 - nan


def _pair(interval: Any) -> tuple[float, float] | None:  # noqa: ANN401 - a metric of any task
    if interval is None or any(_number(end) is None for end in interval):
        return None
    low, high = interval
    return float(low), float(high)
