"""The configuration: dataclasses as Hydra's schema, so that a misspelt key is an error, and their checks.

Nothing here imports TensorFlow or Keras: `--help` and a configuration error must answer at once.
"""

from __future__ import annotations

from voxlift.app.config.checks import (
    INITS,
    SPLIT_NAMES,
    check_settings,
    find_audit_problems,
    find_centre_problems,
    find_choice_problems,
    find_count_problems,
    find_depth_policy_problems,
    find_evaluation_problems,
    find_range_problems,
)
from voxlift.app.config.commands import (
    AuditSettings,
    CompareSettings,
    EvaluateSettings,
    ExportSettings,
    LiftSettings,
    PredictSettings,
    StudySettings,
    TrainSettings,
    register_schemas,
)
from voxlift.app.config.schema import (
    CacheSettings,
    DataSettings,
    DevicesSettings,
    EvaluationSettings,
    ExternalDataSettings,
    HostsSettings,
    LoggerSettings,
    ModelSettings,
    OptimizerSettings,
    PreflightSettings,
    PreprocessSettings,
    SplitSettings,
    TaskSettings,
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
    "EvaluationSettings",
    "ExportSettings",
    "ExternalDataSettings",
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
    "StudySettings",
    "TaskSettings",
    "TrainSettings",
    "TrainerSettings",
    "check_settings",
    "find_audit_problems",
    "find_centre_problems",
    "find_choice_problems",
    "find_count_problems",
    "find_depth_policy_problems",
    "find_evaluation_problems",
    "find_range_problems",
    "register_schemas",
]
