"""The largest batch that fits, by bisection: every size is tried in a child process under a limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from voxlift.app.config import TrainSettings
from voxlift.app.files import read_json, write_json
from voxlift.app.progress import say
from voxlift.app.runtime.devices import host_memory
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.measuring import Ending, MeasurementError, measure

SHARE = 0.8  # of the free memory: the rest is for what else runs here
DIED = "the process died"


@dataclass(frozen=True)
class MemoryFound:
    """What is known about memory.

    Attributes:
        largest: The search.
        limit_bytes: Of the search; None for a GPU's own.
        limit_name: In words.
        how: How the limit was set.
        bytes_per_volume: Slope of the peaks over the batch sizes; nan where it cannot be told.
        problem: Why the search ended without an answer; empty where it came to its end.
    """

    largest: Largest
    limit_bytes: int | None
    limit_name: str
    how: str
    bytes_per_volume: float
    problem: str = ""


def find_largest(
    settings: TrainSettings,
    steps: Mapping[int, Mapping[str, Any]],
    *,
    most: int,
    memory_gb: float | None,
    seconds: float,
    folder: StudyFolder,
) -> MemoryFound:
    """Search the largest batch up to `most`.

    Args:
        settings: Of the reference training.
        steps: The measured steps of each batch size, which say where to begin.
        most: The largest batch that is tried.
        memory_gb: Limit in GiB; None takes four fifths of what is free now (and remembers it).
        seconds: That one try may take; one that takes longer ends the search.
        folder: Of the study.
    """
    on_gpu = next(iter(steps.values()))["device"] == "GPU"
    limit, name = _limit(memory_gb, folder, on_gpu=on_gpu)
    base, slope = fit_line(steps)
    ways: list[str] = []
    problems: list[str] = []

    def fits(size: int) -> bool | None:
        request = {"kind": "fit", "batch_size": size, "limit_bytes": limit}
        try:
            answer = measure(
                f"fit-{size}", settings, request, folder=folder, judge=judge_fit, seconds=seconds
            )
        except MeasurementError as error:
            problems.append(error.reason)
            say(f"  batch of {size}: no answer, {error.reason}")
            return None
        say(f"  batch of {size}: {'fits' if answer['fits'] else 'does not fit'}")
        ways.append(str(answer["how"]))
        return bool(answer["fits"])

    first = most if limit is None or not slope > 0 else int((limit - base) / slope)
    found = bisect_largest(fits, first=max(1, min(first, most)), most=most)
    how = next((way for way in ways if way != DIED), "the process died in every try")
    return MemoryFound(found, limit, name, how, slope, "".join(problems))


def judge_fit(ending: Ending) -> dict[str, Any] | None:
    """A child that ran out of memory says that the batch does not fit; any other end says nothing of it."""
    return {"fits": False, "how": DIED, "reason": ending.reason} if ending.is_memory else None


def fit_line(steps: Mapping[int, Mapping[str, Any]]) -> tuple[float, float]:
    """Peak memory over the batch size as (bytes at 0, bytes per volume)."""
    if len(steps) < 2:
        return float("nan"), float("nan")
    peaks = [float(one["peak_memory_bytes"]) for one in steps.values()]
    slope, base = np.polyfit([float(size) for size in steps], peaks, 1)
    return float(base), float(slope)


def _limit(memory_gb: float | None, folder: StudyFolder, *, on_gpu: bool) -> tuple[int | None, str]:
    if on_gpu:
        return None, "the GPU's own memory"
    if memory_gb is not None:
        return int(memory_gb * 2**30), f"study.memory_gb={memory_gb:g}"
    file = folder.path / "memory.json"  # free memory changes: a study that goes on keeps its limit
    if not file.exists():
        memory = host_memory()
        write_json(file, {"limit_bytes": int(SHARE * memory.free), "of": memory.name})
    kept = read_json(file)
    return int(kept["limit_bytes"]), f"four fifths of what was free on {kept['of']}"


@dataclass(frozen=True)
class Largest:
    """What a search for the largest number found.

    Attributes:
        fits: The largest number tried that fits; 0 where not even the first does.
        fails: The smallest number tried that does not; None where none is known.
        tried: Every number tried with its answer, in order; None for no answer, which ends the search.
    """

    fits: int
    fails: int | None
    tried: tuple[tuple[int, bool | None], ...]

    @property
    def unanswered(self) -> int | None:
        """The number whose trial gave no answer, if one did."""
        return next((number for number, answer in self.tried if answer is None), None)

    def may_fit(self, number: int) -> bool:
        """Whether a number fits, or where the search came to no end, is not known to fail."""
        is_open = self.unanswered is not None and (self.fails is None or number < self.fails)
        return number <= self.fits or is_open


def bisect_largest(
    fits: Callable[[int], bool | None], *, first: int, most: int, precision: float = 0.1
) -> Largest:
    """Return the largest number up to `most` for which `fits` says yes, doubling first and bisecting then.

    Args:
        fits: Asked once for each number; expected to say no from some number on. None (it cannot be told)
            ends the search.
        first: Where doubling starts.
        most: The largest number that is tried.
        precision: The bisection ends when the numbers that fit and fail lie within this share of the first.

    >>> bisect_largest(lambda n: n <= 37, first=4, most=1000, precision=0.0).fits
    37
    """
    low, high, number = 0, most + 1, min(first, most)
    tried: list[tuple[int, bool | None]] = []
    while high - low > max(1, precision * low):
        answer = fits(number)
        tried.append((number, answer))
        if answer is None:
            break
        low, high = (number, high) if answer else (low, number)
        is_doubling = high > most
        number = min(2 * low, most) if is_doubling and low < most else (low + high) // 2
        if low == most or number in (low, 0):
            break
    return Largest(low, high if high <= most else None, tuple(tried))
