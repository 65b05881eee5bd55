"""McNemar's test on the decisions of two models, exact, for clustered volumes, folds and seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from voxlift.app.evaluation.scores import ClassFits, Floats, Integers, Scores, align_fits, index_subjects


@dataclass(frozen=True)
class McNemar:
    """Counts of volumes by which model decided correctly (over all fits), and two-sided p-values."""

    both_right: int
    only_first: int
    only_second: int
    both_wrong: int
    exact_p: float
    mid_p: float


def mcnemar_test(first: Scores | ClassFits, second: Scores | ClassFits) -> McNemar:
    """Test whether two models are correct equally often; each fit decides at its own threshold.

    With one volume per subject and one fit this is McNemar's exact test and its mid-p variant (the better
    default: the exact one rejects too rarely). Otherwise each subject's surplus (volumes that only the
    second model classifies correctly minus those that only the first does, over folds and seeds) is one
    draw whose sign is arbitrary if the models are equal: the distribution of the sum over all signs is
    computed exactly, and subjects stay whole.

    Source:
        McNemar 1947, doi:10.1007/BF02295996; mid-p: Fagerland, Lydersen and Laake 2013,
        doi:10.1186/1471-2288-13-91.
    """
    left, right = align_fits(first, second)
    subjects, indices = index_subjects(left)
    counts = np.zeros((2, 2), dtype=np.int64)
    surplus = np.zeros(len(subjects), dtype=np.int64)
    for one, other, index in zip(left, right, indices, strict=True):
        is_right = [np.asarray(scores.decisions == scores.labels).astype(np.int64) for scores in (one, other)]
        np.add.at(counts, (is_right[0], is_right[1]), 1)
        np.add.at(surplus, index, is_right[1] - is_right[0])
    exact, mid = sign_flip_p(surplus)
    return McNemar(int(counts[1, 1]), int(counts[1, 0]), int(counts[0, 1]), int(counts[0, 0]), exact, mid)


def sign_flip_p(surplus: Integers) -> tuple[float, float]:
    """Return the exact two-sided p and mid-p of a sum of integers under random signs.

    Args:
        surplus: One integer per subject [S], whose sign is plus or minus with equal probability.
    """
    steps = np.abs(surplus[surplus != 0])
    if not steps.size:
        return 1.0, 1.0  # no decision differs: half of the mass would be a mid-p of one half
    bound = int(steps.sum())
    probability: Floats = np.zeros(2 * bound + 1)
    probability[bound] = 1.0
    for step in steps:
        # The roll never wraps: no mass reaches the ends before the last step.
        probability = (np.roll(probability, step) + np.roll(probability, -step)) / 2
    distance = np.abs(np.arange(-bound, bound + 1))
    observed = abs(int(surplus.sum()))
    beyond = float(probability[distance > observed].sum())
    equal = float(probability[distance == observed].sum())
    return min(1.0, beyond + equal), min(1.0, beyond + equal / 2)
