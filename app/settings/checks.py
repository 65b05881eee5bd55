"""The door's checks: every problem of a configuration at once, before anything is read or built."""

from __future__ import annotations

import importlib.util

from voxlift.app.errors import refuse_problems
from voxlift.app.extras import install_extra
from voxlift.app.settings.commands import AuditSettings, TrainSettings
from voxlift.app.settings.data_checks import data_problems, shape_problems, split_problems
from voxlift.app.settings.groups import HostsSettings, LoggerSettings
from voxlift.app.settings.model_checks import model_problems
from voxlift.app.settings.sentences import choice_problem, range_problem

STRATEGIES = ("single", "mirrored", "hosts")
PRECISIONS = ("auto", "float32", "mixed_float16", "mixed_bfloat16")
SPLIT_NAMES = ("train", "val", "test")


def check_settings(settings: TrainSettings) -> None:
    """Refuse settings that no run could follow.

    Raises:
        SettingsError: listing every problem at once.
    """
    refuse_problems(
        [
            *data_problems(settings.data),
            *split_problems(settings.splits),
            *shape_problems(settings.preprocess),
            *model_problems(settings.model),
            *_spacing_problems(settings),
            *_trainer_problems(settings),
        ]
    )


def audit_problems(settings: AuditSettings) -> list[str]:
    """One sentence for each thing wrong with the settings of an audit."""
    return [
        *data_problems(settings.data),
        *choice_problem("preprocess.prefer", settings.preprocess.prefer, ("sform", "qform")),
        *range_problem("thumbnails", settings.thumbnails, 0, 10_000),
        *range_problem("workers", settings.workers, 0, 1024),
    ]


def _spacing_problems(settings: TrainSettings) -> list[str]:
    if settings.model.depth_policy != "spacing" or settings.preprocess.spacing != "native":
        return []
    way_out = "Set it in mm, as in 'preprocess.spacing=[4,1,1]', or take model.depth_policy=preserve."
    return [f"model.depth_policy=spacing: expected mm; preprocess.spacing is native. {way_out}"]


def _logger_problems(logger: LoggerSettings) -> list[str]:
    if not logger.mlflow or importlib.util.find_spec("mlflow") is not None:
        return []
    return [f"logger=mlflow: expected the package mlflow, which is not installed. {install_extra('mlflow')}"]


def _trainer_problems(settings: TrainSettings) -> list[str]:
    trainer = settings.trainer
    return [
        *choice_problem("precision", settings.precision, PRECISIONS),
        *_logger_problems(settings.logger),
        *choice_problem("device", settings.device, ("auto", "cpu", "gpu")),
        *range_problem("devices.logical_cpus", settings.devices.logical_cpus, 0, 64),
        *_strategy_problems(settings),
        *choice_problem("trainer.balance", trainer.balance, ("none", "sample", "weights")),
        *choice_problem("trainer.monitor", trainer.monitor, ("auc", "loss", "balanced_accuracy", "accuracy")),
        *choice_problem("optimizer.schedule", settings.optimizer.schedule, ("cosine", "constant")),
        *range_problem("trainer.epochs", trainer.epochs, 1, 100_000),
        *range_problem("trainer.batch_size", trainer.batch_size, 1, 100_000),
        *range_problem("trainer.label_smoothing", trainer.label_smoothing, 0.0, 0.5),
        *choice_problem("trainer.loss", trainer.loss, ("cross_entropy", "focal")),
        *range_problem("trainer.focal_gamma", trainer.focal_gamma, 0.0, 10.0),
        *range_problem("trainer.accumulate", trainer.accumulate, 1, 10_000),
        *range_problem("trainer.ema", trainer.ema, 0.0, 0.99999),
        *range_problem("trainer.checkpoint_steps", trainer.checkpoint_steps, 0, 10**9),
    ]


def _strategy_problems(settings: TrainSettings) -> list[str]:
    problems = choice_problem("strategy", settings.strategy, STRATEGIES)
    if settings.strategy == "mirrored" and settings.trainer.accumulate > 1:
        problems.append("trainer.accumulate: expected 1 with strategy=mirrored; raise trainer.batch_size.")
    if settings.strategy != "mirrored" and settings.devices.logical_cpus:
        problems.append("devices.logical_cpus: expected 0 unless strategy=mirrored, which alone reads it.")
    if settings.strategy == "hosts" and settings.model.kind == "table":
        name = settings.model.name
        problems.append(f"strategy: expected single for model={name}, which one process fits at once.")
    if settings.strategy != "hosts" and settings.hosts != HostsSettings():
        problems.append("hosts: expected none of its keys unless strategy=hosts, which alone reads them.")
    return problems
