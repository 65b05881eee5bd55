"""Search the largest batch that fits into memory: every size is tried in a child process under a limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from voxlift.app.config import TrainSettings
from voxlift.app.files import read_json, write_json
from voxlift.app.progress import print_line
from voxlift.app.runtime.devices import find_host_memory
from voxlift.app.studies.batch_size.points import Answer, MemorySearch, SearchResult
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.measurement_process import FailedMeasurement, MeasurementError, measure

SHARE_OF_FREE_MEMORY = 0.8  # the rest is for other processes
DIED = "the process died"


def search_largest_batch(
    settings: TrainSettings,
    steps: Mapping[int, Answer],
    *,
    most: int,
    memory_gb: float | None,
    seconds: float,
    folder: StudyFolder,
) -> MemorySearch:
    """Search the largest batch that fits, up to `most`.

    Args:
        settings: Settings of the reference training.
        steps: Measured steps by batch size; their peaks give the first size that is tried.
        most: Largest batch size that is tried.
        memory_gb: Limit in GB; None for four fifths of the free memory, which is kept for later calls.
        seconds: Time limit of one trial; a trial that takes longer ends the search.
        folder: Folder of the study.
    """
    on_gpu = next(iter(steps.values()))["device"] == "GPU"
    limit, limit_name = _choose_limit(memory_gb, folder, on_gpu=on_gpu)
    base, slope = fit_peak_memory(steps)
    methods: list[str] = []
    problems: list[str] = []

    def fits(size: int) -> bool | None:
        request = {"kind": "fit", "batch_size": size, "limit_bytes": limit}
        try:
            answer = measure(
                f"fit-{size}", settings, request, folder=folder, interpret=interpret_failure, seconds=seconds
            )
        except MeasurementError as error:
            problems.append(error.reason)
            print_line(f"  batch of {size}: no answer, {error.reason}")
            return None
        print_line(f"  batch of {size}: {'fits' if answer['fits'] else 'does not fit'}")
        methods.append(str(answer["how"]))
        return bool(answer["fits"])

    first = most if limit is None or not slope > 0 else int((limit - base) / slope)
    found = bisect_largest(fits, first=max(1, min(first, most)), most=most)
    how = next((method for method in methods if method != DIED), "the process died in every trial")
    return MemorySearch(found, limit, limit_name, how, slope, "".join(problems))


def interpret_failure(failed: FailedMeasurement) -> dict[str, Any] | None:
    """Return that the batch does not fit after an out-of-memory failure; None, no answer, after any other."""
    return {"fits": False, "how": DIED, "reason": failed.reason} if failed.is_out_of_memory else None


def fit_peak_memory(steps: Mapping[int, Answer]) -> tuple[float, float]:
    """Return a line through peak memory over batch size as (bytes at 0, bytes per volume)."""
    if len(steps) < 2:
        return float("nan"), float("nan")
    peaks = [float(one["peak_memory_bytes"]) for one in steps.values()]
    slope, base = np.polyfit([float(size) for size in steps], peaks, 1)
    return float(base), float(slope)


def _choose_limit(memory_gb: float | None, folder: StudyFolder, *, on_gpu: bool) -> tuple[int | None, str]:
    if on_gpu:
        return None, "the GPU's own memory"
    if memory_gb is not None:
        return int(memory_gb * 1e9), f"study.memory_gb={memory_gb:g}"
    file = folder.path / "memory.json"  # free memory changes: a resumed study keeps its limit
    if not file.exists():
        memory = find_host_memory()
        write_json(file, {"limit_bytes": int(SHARE_OF_FREE_MEMORY * memory.free), "of": memory.name})
    kept = read_json(file)
    return int(kept["limit_bytes"]), f"four fifths of the free memory of {kept['of']}"


def bisect_largest(
    fits: Callable[[int], bool | None], *, first: int, most: int, precision: float = 0.1
) -> SearchResult:
    """Return the largest number up to `most` for which `fits` returns True, by doubling and then bisection.

    Args:
        fits: Called once per number; expected to return False from some number on. None (unknown) ends the
            search.
        first: Number to start doubling from.
        most: Largest number that is tried.
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
    return SearchResult(low, high if high <= most else None, tuple(tried))
