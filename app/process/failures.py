"""What can befall a training from outside, told in sentences: no memory, no room, an interruption."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import UserError
from app.process.supervising import tell
from app.runs.folder import RunFolder
from app.settings import TrainerSettings

log = logging.getLogger("voxlift")

MEMORY = ("ResourceExhaustedError", "RESOURCE_EXHAUSTED", "OOM when allocating", "Unable to allocate")
ROOM = ("No space left on device", "Disk quota exceeded")


def announce(trainer: TrainerSettings, run: RunFolder | None = None) -> None:
    """Tell the supervising process what it shall say, should the engine end without a word.

    Args:
        trainer: the settings that decide how much memory is needed.
        run: whose training can go on, as soon as there is one.
    """
    tell(doing=f"trainer.batch_size={trainer.batch_size}", way_out=_needs_less(trainer))
    if run is not None:
        tell(way_on=way_on(run))


@contextmanager
def told_in_sentences(run: RunFolder, trainer: TrainerSettings) -> Iterator[None]:
    """Turn what befalls a training into a sentence with the way out.

    Raises:
        UserError: memory or room ran out.
    """
    try:
        yield
    except KeyboardInterrupt:
        log.info("Interrupted. %s", way_on(run))
        raise
    except Exception as error:
        told = explain_failure(error, trainer)
        if told is None:
            raise
        raise UserError(f"{told} {way_on(run)}") from error


def explain_failure(error: Exception, trainer: TrainerSettings) -> str | None:
    """What ran out, and what helps; None where it is something else."""
    text = f"{type(error).__name__}: {error}"
    if any(words in text for words in ROOM) or getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}:
        where = getattr(error, "filename", None) or "the run folder's disk"
        return f"No space left on device ({where}): what was finished stays as it is. Make room there."
    if isinstance(error, MemoryError) or any(words in text for words in MEMORY):
        return f"Out of memory with trainer.batch_size={trainer.batch_size}. {_needs_less(trainer)}"
    return None


def way_on(run: RunFolder) -> str:
    """How the training goes on later."""
    return f"To go on from the newest checkpoint: voxlift-train resume={run.path}"


def _needs_less(trainer: TrainerSettings) -> str:
    return f"Less is needed by {_smaller(trainer)}, or by a smaller preprocess.shape."


def _smaller(trainer: TrainerSettings) -> str:
    """Half the batch, and the same step."""
    if trainer.batch_size == 1:
        return "fewer model.filters (it was one volume at a time already)"
    half, portions = trainer.batch_size // 2, trainer.accumulate * 2
    return f"trainer.batch_size={half} trainer.accumulate={portions} (the same step in half the memory)"
