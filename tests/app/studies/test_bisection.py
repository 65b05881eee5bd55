import pytest

from voxlift.app.studies.architecture.advice import pareto_front
from voxlift.app.studies.batch_size.memory import bisect_largest


@pytest.mark.parametrize("truth", [0, 1, 3, 4, 5, 31, 32, 33, 63, 64])
@pytest.mark.parametrize("first", [1, 4])
def test_the_exact_boundary_is_found(truth, first):
    asked = []

    def fits(number):
        asked.append(number)
        return number <= truth

    found = bisect_largest(fits, first=first, most=64, precision=0.0)
    assert found.fits == truth
    assert found.fails == (None if truth == 64 else truth + 1)
    assert len(asked) == len(set(asked)) <= 14
    assert found.tried == tuple((number, number <= truth) for number in asked)


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


def test_the_front_holds_what_nothing_beats():
    scores, costs = [0.7, 0.9, 0.9, 0.8, 0.95, 0.6], [1.0, 3.0, 2.0, 2.5, 9.0, 1.0]
    front = pareto_front(scores, costs)
    assert front == [0, 2, 4]
    for i in range(6):
        beaten = any(
            scores[j] >= scores[i] and costs[j] <= costs[i] and (scores[j], costs[j]) != (scores[i], costs[i])
            for j in range(6)
        )
        assert (i in front) != beaten


def test_of_equal_points_one_stays():
    assert pareto_front([0.9, 0.9], [1.0, 1.0]) == [0]
