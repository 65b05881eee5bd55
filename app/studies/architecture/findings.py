"""What a study of the architecture has trained, for its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from voxlift.app.settings import TrainSettings
from voxlift.app.studies.architecture.points import Variant
from voxlift.app.trials.outcomes import Outcome


@dataclass(frozen=True)
class ArchitectureFindings:
    """What was trained.

    Attributes:
        base: The settings that were changed.
        variants: All that were wanted, the base first.
        outcomes: What became of their trainings.
        twins: For each variant that was not trained the one that is the same network.
        refusals: A sentence for each variant that no training could follow.
    """

    base: TrainSettings
    variants: Sequence[Variant]
    outcomes: Sequence[Outcome]
    twins: Mapping[str, Variant]
    refusals: Sequence[str]
