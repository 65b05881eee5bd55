"""What a study varied and what it held fixed, from its settings, for its page."""

from __future__ import annotations

from collections.abc import Sequence

from voxlift.app.settings import TrainSettings

NOTE_AUC = (
    "Scores are ROC AUC per subject on the validation part; a training's weights are those of its best epoch "
    "there, by the same rule for all, so that they are a little optimistic for all. The test part is not "
    "used."
)
NOTE_INTERVAL = (
    "Intervals are 95 %, from a bootstrap over subjects in which all seeds of a subject are drawn together; "
    "differences are paired. Two points are told apart only where the interval of their difference excludes "
    "0 and the Holm-adjusted p-value over all points is below 0.05."
)
CAPTION_DIFFERENCES = (
    "Scores on validation. Differences are paired, against the {}; their intervals are those of each pair "
    "alone, p is adjusted over all pairs (Holm). Told apart (better, worse) are those whose interval "
    "excludes 0 and whose p is below 0.05."
)
NOTE_SPLIT = "A seed decides the split, the initial weights and the order of the batches alike."


def describe_fixed(settings: TrainSettings, *, varied: Sequence[str] = ()) -> list[tuple[str, str]]:
    """The settings that matter and were the same for all points; those that were varied are left out."""
    data, model, optimizer = settings.data, settings.model, settings.optimizer
    shown = {
        "data": (data.task and f"{data.name}, {data.task}") or data.name,
        "preprocess.shape": _sides(settings.preprocess.shape),
        "preprocess.spacing": _sides(settings.preprocess.spacing),
        "augment": str(settings.augment.get("name", "")),
        "model": model.name,
        "model.baseline": model.baseline,
        "model.filters": _sides(model.filters),
        "model.depth_policy": str(model.depth_policy),
        "model.init": model.init,
        "model.dropout": f"{model.dropout:g}",
        "optimizer": f"{optimizer.name}, {optimizer.schedule}",
        "optimizer.learning_rate": f"{optimizer.learning_rate:g}",
        "optimizer.weight_decay": f"{optimizer.weight_decay:g}",
        "trainer.epochs": str(settings.trainer.epochs),
        "trainer.batch_size": str(settings.trainer.batch_size),
        "trainer.balance": settings.trainer.balance,
        "precision": settings.precision,
    }
    return [(key, text) for key, text in shown.items() if key not in varied and text]


def say_load(loads: Sequence[float]) -> list[str]:
    """A warning where the machine was busy with other things while time was taken."""
    busiest = max(loads, default=0.0)
    if busiest < 0.5:
        return []
    return [
        (
            f"Other work kept this machine busy while time was taken (up to {busiest:.1f} per core): times "
            "are upper bounds, and their ratios less certain than they look."
        )
    ]


def _sides(values: object) -> str:
    if isinstance(values, list | tuple):
        return " x ".join(f"{value:g}" for value in values)
    return "" if values is None else str(values)
