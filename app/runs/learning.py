"""Whether a model has learnt its training subjects, and whether that holds for others: `learning.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from voxlift.app.config import TrainSettings
from voxlift.app.evaluation.bootstrap import bootstrap_intervals
from voxlift.app.evaluation.metric_names import metric_label
from voxlift.app.evaluation.metrics import score_metrics
from voxlift.app.evaluation.scores import Predictions
from voxlift.app.files import read_json, write_json
from voxlift.app.runs.configuration import describe_extensions
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.results import find_best_epoch, read_history

CHANCE = {"kappa_quadratic": 0.0, "auc": 0.5, "r2": 0.0}  # of the first that a task has; 1 is perfect
RESAMPLES = 200  # for a rule of thumb
LITTLE = 0.3  # of the way from chance to perfect: a training score below has hardly been learnt
GAP = 0.1  # between training and validation that matters
MIN_SUBJECTS = 10  # of training, and of validation 5, below which nothing is said


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
    augment = str(settings.augment.get("name", ""))
    return [
        *describe_learning(found, augment=augment, has_network=settings.model.has_network),
        *describe_extensions(run),
    ]


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


def describe_learning(found: Mapping[str, Any], *, augment: str = "", has_network: bool = True) -> list[str]:
    """Return sentences about the content of `learning.json`, with what to try next.

    Args:
        found: Its content.
        augment: Name of the augmentation, `none` for none.
        has_network: Whether there are epochs, augmentation and layers to change.
    """
    if found.get("train") is None:
        return []
    sentences = [_compare(found)]
    if has_network:
        sentences += _suggest(found, augment)
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


def _suggest(found: Mapping[str, Any], augment: str) -> list[str]:
    if found["state"] == "underfits":
        weaker = (
            f" augment=none, since the interpolation of augment={augment} blurs structures of a few voxels;"
            if augment not in ("", "none")
            else ""
        )
        learnt = _describe_batch(found)
        others = "a finer grid, as preprocess.budget=96 gives; larger model.filters; and look at some labels."
        return [f"{learnt}Try:{weaker} more trainer.epochs; a higher optimizer.learning_rate; {others}"]
    if found["state"] == "overfits":
        more = " augment=light or strong;" if augment == "none" else ""
        first = f"Try:{more} more subjects; trained weights (experiment=inflated, model.weights); "
        return [f"{first}a higher model.dropout or optimizer.weight_decay; smaller model.filters."]
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
