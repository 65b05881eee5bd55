"""Translate out-of-memory, full disk and interrupts into messages that say what to do."""

from __future__ import annotations

import errno
import logging
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from voxlift.app.config import TrainerSettings
from voxlift.app.config.overrides import format_override
from voxlift.app.errors import UserError
from voxlift.app.runtime.supervisor import send_hints

log = logging.getLogger("voxlift")

# Words of Python, numpy, the C++ library, TensorFlow, JAX and the operating system; compared without case.
OUT_OF_MEMORY_WORDS = (
    "memoryerror",
    "std::bad_alloc",
    "resourceexhausted",
    "resource_exhausted",
    "resource exhausted",
    "oom when allocating",
    "out of memory",
    "cannot allocate memory",
    "unable to allocate",
)
DISK_FULL_WORDS = ("No space left on device", "Disk quota exceeded")
REPEAT = "Then start the same command again."
FILE_LIMIT_WORDS = ("File too large",)


def is_out_of_memory(error: BaseException | str) -> bool:
    """Return whether an error, or the output of a process, reports a lack of memory.

    A full disk is no lack of memory, although TensorFlow reports both as exhausted resources.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory("ResourceExhausted: x; No space left on device")
    (True, False)
    """
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    is_memory = isinstance(error, MemoryError) or any(words in text.lower() for words in OUT_OF_MEMORY_WORDS)
    return is_memory and not is_disk_full(error)


def is_disk_full(error: BaseException | str) -> bool:
    """Return whether an error, or the output of a process, reports a full disk."""
    is_number = getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}
    return is_number or any(words in str(error) for words in DISK_FULL_WORDS)


def is_file_limit(error: BaseException | str) -> bool:
    """Return whether an error, or the output of a process, reports that a file may not grow any further."""
    return getattr(error, "errno", None) == errno.EFBIG or any(
        words in str(error) for words in FILE_LIMIT_WORDS
    )


@dataclass(frozen=True)
class MemoryHint:
    """What to change where memory runs out.

    Attributes:
        setting: What decides how much memory the job needs, as the user writes it.
        fix: A sentence on what needs less.
    """

    setting: str
    fix: str


def build_training_hint(trainer: TrainerSettings) -> MemoryHint:
    """Return the hint for a training: half the batch with twice the accumulation gives the same step."""
    if trainer.batch_size == 1:
        smaller = "fewer model.filters (it was one volume at a time already)"
    else:
        half, microbatches = trainer.batch_size // 2, trainer.accumulate * 2
        smaller = (
            f"trainer.batch_size={half} trainer.accumulate={microbatches} (the same step in half the memory)"
        )
    fix = f"To need less memory, set {smaller}, or a smaller preprocess.shape."
    return MemoryHint(f"trainer.batch_size={trainer.batch_size}", fix)


def build_scoring_hint(batch_size: int) -> MemoryHint:
    """Return the hint for scoring with a finished network, `batch_size` volumes at once."""
    if batch_size == 1:
        fix = "It was one volume at a time already; CUDA_VISIBLE_DEVICES=-1 computes without a small GPU."
    else:
        fix = (
            f"The same command with batch_size={batch_size // 2} needs less memory and gives the same scores."
        )
    return MemoryHint(f"batch_size={batch_size}", fix)


def build_resume_hint(folder: Path, custom: Sequence[str] = ()) -> str:
    """Return the sentence that says how to resume the training in a run folder.

    Args:
        folder: Of the run.
        custom: Modules of the user, which a resumed training imports only where its command names them.
    """
    return f"To resume from the newest checkpoint: voxlift-train {format_resume(folder, custom)}"


def format_resume(folder: Path, custom: Sequence[str]) -> str:
    """Return the keys that resume the training in a run folder, as in `build_resume_hint`."""
    named = f" {shlex.quote(format_override('custom', list(custom)))}" if custom else ""
    return f"resume={folder}{named}"


@contextmanager
def translate_failures(hint: MemoryHint, resume: str = "") -> Iterator[None]:
    """Translate out-of-memory, full disk and interrupts inside into messages with the fix.

    The supervising process gets the same hints, for a process that crashes without a message.

    Args:
        hint: What needs less memory.
        resume: How the job can be resumed; empty where the same command does it.

    Raises:
        UserError: Memory or disk space ran out.
    """
    send_hints(setting=hint.setting, fix=hint.fix, **({"resume": resume} if resume else {}))
    try:
        yield
    except KeyboardInterrupt:
        if resume:
            log.info("Interrupted. %s", resume)
        raise
    except Exception as error:
        message = _describe_failure(error, hint)
        if message is None:
            raise
        again = "" if is_out_of_memory(error) else REPEAT
        raise UserError(f"{message} {resume or again}".rstrip()) from error


def _describe_failure(error: Exception, hint: MemoryHint) -> str | None:
    """Return what ran out and what helps; None for every other error."""
    where = getattr(error, "filename", None) or "the disk of the results"
    if is_file_limit(error):
        return (
            f"The file-size limit is reached ({where}). Finished files are unchanged. Raise it "
            "(ulimit -f), or choose a disk that takes larger files."
        )
    if is_disk_full(error):
        return f"No space left on device ({where}). Finished files are unchanged. Free some space there."
    if is_out_of_memory(error):
        return f"Out of memory with {hint.setting}. {hint.fix}"
    return None
