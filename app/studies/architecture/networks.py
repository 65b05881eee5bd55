"""What variants become before they are trained: which cannot be built, and which are the same network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from voxlift.app.config import TrainSettings
from voxlift.app.config.overrides import list_changes
from voxlift.app.progress import say
from voxlift.app.studies.architecture.points import Variant
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.measuring import measure

# Of the model: what stands in the network itself, its structure or its first weights.
SEEN = ("baseline", "filters", "filter_scale", "head", "depth_kernel", "dropout", "depth_policy", "init")


@dataclass(frozen=True)
class Lineup:
    """What is trained, and what is not.

    Attributes:
        variants: Those that are, each another network or training.
        twins: For each that is left out the one whose training would be repeated.
        refusals: A sentence for each that cannot be built.
    """

    variants: Sequence[Variant]
    twins: Mapping[str, Variant]
    refusals: Sequence[str]


def line_up(
    variants: Sequence[Variant],
    settings: Mapping[str, TrainSettings],
    *,
    base: TrainSettings,
    folder: StudyFolder,
) -> Lineup:
    """Build every variant once, in a child process, and leave out what is another one over again.

    Args:
        variants: The base first, so that its twins are called so.
        settings: Of each variant's training, by label.
        base: What was changed.
        folder: Of the study.
    """
    say("Looking at the networks")
    request = {
        "kind": "networks",
        "models": {label: asdict(one.model) for label, one in settings.items()},
    }
    looked: Mapping[str, Any] = measure("networks", base, request, folder=folder)["networks"]
    kept: list[Variant] = []
    twins, refusals = {}, []
    for variant in variants:
        if looked[variant.label]["problem"]:
            refusals.append(f"{variant.name}: {looked[variant.label]['problem']}")
            continue
        twin = next((one for one in kept if is_twin(variant, one, settings, looked, base)), None)
        if twin is None:
            kept.append(variant)
        else:
            twins[variant.label] = twin
    return Lineup(kept, twins, refusals)


def say_twins(variants: Sequence[Variant], twins: Mapping[str, Variant]) -> list[str]:
    """Which variants have no row of their own, and why."""
    names = {variant.label: variant.name for variant in variants}
    spoken = [f"{names[label]} is {twin.name}" for label, twin in twins.items()]
    return [f"Not trained twice, being the same network: {', '.join(spoken)}."] if spoken else []


def is_twin(
    one: Variant,
    other: Variant,
    settings: Mapping[str, TrainSettings],
    looked: Mapping[str, Any],
    base: TrainSettings,
) -> bool:
    """Whether two variants are the same network, from the same weights, trained alike."""
    changes = list_changes(settings[one.label], settings[other.label])
    unseen = [
        change for change in changes if change.partition(":")[0] not in {f"model.{key}" for key in SEEN}
    ]
    starts = one.starts_trained(base), other.starts_trained(base)
    return not unseen and starts[0] == starts[1] and looked[one.label] == looked[other.label]
