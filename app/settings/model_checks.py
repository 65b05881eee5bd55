"""What is wrong with the settings of the network, and of its lift."""

from __future__ import annotations

from voxlift.app.settings.groups import ModelSettings
from voxlift.app.settings.sentences import choice_problem, range_problem

MODEL_KINDS = ("slice", "volume", "table")
INITS = ("centre", "mean", "acs", "random")
DEPTH_POLICIES = ("isotropic", "preserve", "slicewise", "spacing")


def model_problems(model: ModelSettings) -> list[str]:
    """One sentence for each thing wrong with the network or its lift (group `model`)."""
    return [
        *choice_problem("model.kind", model.kind, MODEL_KINDS),
        *_column_problems(model),
        *choice_problem("model.axis", model.axis, ("depth", "height", "width", "all")),
        *choice_problem("model.slices", model.slices, ("all", "central", "foreground")),
        *choice_problem("model.aggregate", model.aggregate, ("mean", "max", "topk", "attention")),
        *choice_problem("model.init", model.init, INITS),
        *depth_policy_problems("model.depth_policy", model.depth_policy),
        *choice_problem("model.head", model.head, ("pool", "flatten")),
        *range_problem("model.filter_scale", model.filter_scale, 0.01, 16.0),
        *(
            []
            if model.depth_kernel is None
            else range_problem("model.depth_kernel", model.depth_kernel, 1, 99)
        ),
        *_scale_problems(model),
        *range_problem("model.dropout", model.dropout, 0.0, 0.95),
        *range_problem("model.rate_factor", model.rate_factor, 1e-6, 100.0),
        *range_problem("model.freeze_epochs", model.freeze_epochs, 0, 100_000),
    ]


def _column_problems(model: ModelSettings) -> list[str]:
    if model.kind != "table" or model.columns:
        return []
    return ["model.columns: expected columns of the table to predict from, as in 'model.columns=[age,sex]'."]


def _scale_problems(model: ModelSettings) -> list[str]:
    """What only the networks that are built here can follow: other networks are cut when they are lifted."""
    if model.baseline in {"cnn", "resnet"}:
        return []
    problems = []
    if model.head != "pool":
        problems.append(f"model.head={model.head}: only the baselines cnn and resnet have a choice of heads.")
    if model.filter_scale > 1 or (model.filter_scale < 1 and model.kind == "slice"):
        problems.append(
            f"model.filter_scale={model.filter_scale:g}: model.baseline={model.baseline} can only be cut to "
            "fewer filters, and only when it is lifted; expected up to 1, with a volume model."
        )
    return problems


def depth_policy_problems(key: str, policy: object) -> list[str]:
    """What is wrong with a depth policy: a name, a list of one per stage, a rule, or choices by layer.

    >>> depth_policy_problems("depth_policy", {"default": "preserve", "block5*": {"stride": 2}})
    []
    >>> depth_policy_problems("depth_policy", ["preserve", "deep"])
    ['depth_policy: expected one of isotropic, preserve, slicewise, spacing; received deep.']
    """
    if isinstance(policy, dict) and policy and set(policy) <= {"kernel", "stride", "pool"}:
        wrong = {part: size for part, size in policy.items() if not _is_depth_size(size)}
        return [
            f"{key}.{part}: expected height or a number above 0; received {size}."
            for part, size in wrong.items()
        ]
    if isinstance(policy, dict | list) and policy:
        choices = policy.values() if isinstance(policy, dict) else policy
        return [problem for choice in choices for problem in depth_policy_problems(key, choice)]
    return choice_problem(key, policy, DEPTH_POLICIES)


def _is_depth_size(size: object) -> bool:
    return size == "height" or (isinstance(size, int) and not isinstance(size, bool) and size > 0)
