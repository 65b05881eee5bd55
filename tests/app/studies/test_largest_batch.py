"""The search for the largest batch: the boundary is found with few trials, and an unknown answer ends it."""

import itertools

import pytest

from voxlift.app.studies.batch_size.memory import bisect_largest, fit_peak_memory


def test_the_exact_boundary_is_found_with_few_trials():
    for truth, first in itertools.product(range(65), (1, 4)):
        found = bisect_largest(
            lambda number, truth=truth: number <= truth, first=first, most=64, precision=0.0
        )
        numbers = [number for number, _ in found.tried]
        assert (found.fits, found.fails) == (truth, None if truth == 64 else truth + 1)
        assert len(numbers) == len(set(numbers)) <= 14
        assert found.tried == tuple((number, number <= truth) for number in numbers)


def test_a_coarse_search_ends_within_its_precision():
    found = bisect_largest(lambda n: n <= 700, first=8, most=10_000, precision=0.1)
    assert found.fits <= 700 < found.fails <= found.fits * 1.1 + 1


def test_no_answer_ends_the_search_and_is_no_limit():
    found = bisect_largest(lambda n: None if n == 32 else n < 50, first=8, most=64)
    assert (found.fits, found.fails, found.unanswered) == (16, None, 32)
    assert found.may_fit(64)
    found = bisect_largest(lambda n: None if n == 4 else n < 2, first=8, most=64)
    assert (found.fits, found.fails, found.unanswered) == (0, 8, 4)
    assert found.may_fit(7)
    assert not found.may_fit(8)


def test_memory_per_volume_is_the_slope():
    base, slope = fit_peak_memory({4: {"peak_memory_bytes": 140.0}, 8: {"peak_memory_bytes": 180.0}})
    assert (base, slope) == (pytest.approx(100.0), pytest.approx(10.0))
