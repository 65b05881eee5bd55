"""Do two models' decisions differ on the same volumes? McNemar's test, exact, with subjects as the unit."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxlift.app.evaluation.intervals import Cells
from voxlift.app.evaluation.pairing import align_cells, subject_codes
from voxlift.app.evaluation.scores import Floats, Integers, Scores


@dataclass(frozen=True)
class McNemar:
    """Counts of volumes by who decided rightly (over all cells), and two-sided p-values."""

    both_right: int
    only_first: int
    only_second: int
    both_wrong: int
    exact_p: float
    mid_p: float


def mcnemar_test(first: Scores | Sequence[Scores], second: Scores | Sequence[Scores]) -> McNemar:
    """Test whether two models decide equally often rightly; each cell decides at its own threshold.

    With one volume per subject and one cell this is McNemar's exact test and its mid-p variant (the better
    default: the exact one rejects too rarely). Otherwise each subject's surplus (volumes that only the
    second model has right minus those that only the first has, over folds and seeds) is one draw whose sign
    is arbitrary if the models are equal: the distribution of the sum over all signs is computed exactly, and
    subjects stay whole.

    Source: McNemar 1947, doi:10.1007/BF02295996; mid-p: Fagerland, Lydersen and Laake 2013,
        doi:10.1186/1471-2288-13-91.
    """
    left, right = align_cells(first, second)
    counts = np.zeros((2, 2), dtype=np.int64)
    for one, other in zip(left, right, strict=True):
        np.add.at(counts, (_is_right(one), _is_right(other)), 1)
    exact, mid = sign_flip_p(_surplus(left, right))
    return McNemar(int(counts[1, 1]), int(counts[1, 0]), int(counts[0, 1]), int(counts[0, 0]), exact, mid)


def sign_flip_p(surplus: Integers) -> tuple[float, float]:
    """Exact two-sided p and mid-p of a sum of integers whose signs are each as likely plus as minus."""
    steps = np.abs(surplus[surplus != 0])
    if not steps.size:
        return 1.0, 1.0  # nobody decides differently: half of the mass would be a mid-p of one half
    reach = int(steps.sum())
    chance: Floats = np.zeros(2 * reach + 1)
    chance[reach] = 1.0
    for step in steps:
        chance = (np.roll(chance, step) + np.roll(chance, -step)) / 2  # mass never reaches the ends early
    distance = np.abs(np.arange(-reach, reach + 1))
    observed = abs(int(surplus.sum()))
    beyond, equal = float(chance[distance > observed].sum()), float(chance[distance == observed].sum())
    return min(1.0, beyond + equal), min(1.0, beyond + equal / 2)


def _is_right(scores: Scores) -> Integers:
    right: Integers = np.asarray(scores.decisions == scores.labels).astype(np.int64)
    return right


def _surplus(left: Cells, right: Cells) -> Integers:
    count, codes = subject_codes(left)
    surplus = np.zeros(count, dtype=np.int64)
    for one, other, code in zip(left, right, codes, strict=True):
        np.add.at(surplus, code, _is_right(other) - _is_right(one))
    return surplus
