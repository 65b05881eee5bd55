"""The whole configuration as dataclasses: Hydra's schema (a misspelt key is an error) and the door's checks.

The classes are not frozen because Hydra must be able to override their fields; nothing changes them after
`check_settings`. Nothing here imports TensorFlow: `--help` and a configuration error must answer at once.
"""

from voxlift.app.errors import SettingsError
from voxlift.app.settings.checks import (
    SPLIT_NAMES,
    audit_problems,
    check_settings,
)
from voxlift.app.settings.commands import (
    AuditSettings,
    CompareSettings,
    EvaluateSettings,
    ExportSettings,
    LiftSettings,
    PredictSettings,
    TrainSettings,
    register_schemas,
)
from voxlift.app.settings.groups import (
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
from voxlift.app.settings.model_checks import INITS, depth_policy_problems
from voxlift.app.settings.sentences import choice_problem, count_problem, range_problem

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
