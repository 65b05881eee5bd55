"""What can befall a command from outside, told in sentences: no memory, no room, an interruption."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from voxlift.app.config import TrainerSettings
from voxlift.app.errors import UserError
from voxlift.app.runtime.supervisor import tell

log = logging.getLogger("voxlift")

MEMORY = ("ResourceExhaustedError", "RESOURCE_EXHAUSTED", "OOM when allocating", "Unable to allocate")
ROOM = ("No space left on device", "Disk quota exceeded")


@dataclass(frozen=True)
class Need:
    """What decides how much memory a job needs, as the user wrote it, and a sentence on what needs less."""

    doing: str
    way_out: str


def training_need(trainer: TrainerSettings) -> Need:
    """The need of a training: half the batch in two portions is the same step."""
    way_out = f"Less is needed by {_smaller(trainer)}, or by a smaller preprocess.shape."
    return Need(f"trainer.batch_size={trainer.batch_size}", way_out)


def scoring_need(batch_size: int) -> Need:
    """The need of a finished network at work: how many volumes it scores at once."""
    if batch_size == 1:
        way_out = "It was one volume at a time already; CUDA_VISIBLE_DEVICES=-1 leaves a small GPU alone."
    else:
        way_out = f"The same command with batch_size={batch_size // 2} needs less, and gives the same scores."
    return Need(f"batch_size={batch_size}", way_out)


def announce(need: Need, way_on: str = "") -> None:
    """Tell the supervising process what it shall say, should the engine end without a word.

    Args:
        need: of the job that is about to begin.
        way_on: how it can go on, as soon as it can.
    """
    tell(doing=need.doing, way_out=need.way_out)
    if way_on:
        tell(way_on=way_on)


@contextmanager
def told_in_sentences(need: Need, way_on: str = "") -> Iterator[None]:
    """Turn what befalls a job into a sentence with the way out and the way on, also where it cannot speak.

    Args:
        need: of the job.
        way_on: how it can go on later, where it can.

    Raises:
        UserError: memory or room ran out.
    """
    announce(need, way_on)
    try:
        yield
    except KeyboardInterrupt:
        if way_on:
            log.info("Interrupted. %s", way_on)
        raise
    except Exception as error:
        told = explain_failure(error, need)
        if told is None:
            raise
        raise UserError(f"{told} {way_on}".rstrip()) from error


def explain_failure(error: Exception, need: Need) -> str | None:
    """What ran out, and what helps; None where it is something else."""
    text = f"{type(error).__name__}: {error}"
    if any(words in text for words in ROOM) or getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}:
        where = getattr(error, "filename", None) or "the disk of the results"
        return f"No space left on device ({where}): what was finished stays as it is. Make room there."
    if isinstance(error, MemoryError) or any(words in text for words in MEMORY):
        return f"Out of memory with {need.doing}. {need.way_out}"
    return None


def way_on(folder: Path) -> str:
    """How the training goes on later."""
    return f"To go on from the newest checkpoint: voxlift-train resume={folder}"


def _smaller(trainer: TrainerSettings) -> str:
    """Half the batch, and the same step."""
    if trainer.batch_size == 1:
        return "fewer model.filters (it was one volume at a time already)"
    half, portions = trainer.batch_size // 2, trainer.accumulate * 2
    return f"trainer.batch_size={half} trainer.accumulate={portions} (the same step in half the memory)"
