"""What a study of the batch size has found, for its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxlift.app.studies.batch_size.memory import MemoryFound
from voxlift.app.studies.batch_size.points import BatchPoint
from voxlift.app.studies.batch_size.portions import Portioned
from voxlift.app.trials.outcomes import Outcome

Answer = Mapping[str, Any]


@dataclass(frozen=True)
class BatchFindings:
    """All that was measured and trained.

    Attributes:
        points: What was trained, in order.
        outcomes: What became of every point's trainings.
        steps: The measured steps of each batch size.
        portioned: The largest of them once more, in portions; None where it cannot be cut.
        memory: The search for the largest batch.
        noise: The gradient noise scale, `start` and `trained`; empty where it could not be measured.
    """

    points: Sequence[BatchPoint]
    outcomes: Sequence[Outcome]
    steps: Mapping[int, Answer]
    portioned: Portioned | None
    memory: MemoryFound
    noise: Answer
