"""The whole configuration as dataclasses: Hydra's schema (a misspelt key is an error) and the door's checks.

The classes are not frozen because Hydra must be able to override their fields; nothing changes them after
`check_settings`. Nothing here imports TensorFlow: `--help` and a configuration error must answer at once.
"""

from __future__ import annotations

from voxlift.app.config.checks import (
    INITS,
    SPLIT_NAMES,
    audit_problems,
    check_settings,
    choice_problem,
    count_problem,
    depth_policy_problems,
    range_problem,
)
from voxlift.app.config.commands import (
    AuditSettings,
    CompareSettings,
    EvaluateSettings,
    ExportSettings,
    LiftSettings,
    PredictSettings,
    TrainSettings,
    register_schemas,
)
from voxlift.app.config.schema import (
    CacheSettings,
    DataSettings,
    DevicesSettings,
    HostsSettings,
    LoggerSettings,
    ModelSettings,
    OptimizerSettings,
    PreflightSettings,
    PreprocessSettings,
    SplitSettings,
    TrainerSettings,
)
from voxlift.app.errors import SettingsError

__all__ = [
    "INITS",
    "SPLIT_NAMES",
    "AuditSettings",
    "CacheSettings",
    "CompareSettings",
    "DataSettings",
    "DevicesSettings",
    "EvaluateSettings",
    "ExportSettings",
    "HostsSettings",
    "LiftSettings",
    "LoggerSettings",
    "ModelSettings",
    "OptimizerSettings",
    "PredictSettings",
    "PreflightSettings",
    "PreprocessSettings",
    "SettingsError",
    "SplitSettings",
    "TrainSettings",
    "TrainerSettings",
    "audit_problems",
    "check_settings",
    "choice_problem",
    "count_problem",
    "depth_policy_problems",
    "range_problem",
    "register_schemas",
]
