"""Subgroups: scores of the subjects with each value of a column, and tests of their differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from voxlift.app.evaluation.bootstrap import (
    BLOCK_SIZE,
    RESAMPLES,
    draw_subjects,
    mean_over_fits,
    metric_block,
    percentile_interval,
    subject_strata,
)
from voxlift.app.evaluation.calibration_line import line_draws
from voxlift.app.evaluation.metrics import metric_draws
from voxlift.app.evaluation.paired_tests import holm
from voxlift.app.evaluation.scores import (
    Fits,
    Flags,
    Floats,
    Integers,
    Predictions,
    Scores,
    index_subjects,
    select_rows,
)
from voxlift.app.evaluation.table_one import MISSING, Grouping
from voxlift.app.evaluation.verdict import MIN_SUBJECTS

MetricDraws: TypeAlias = Callable[[Any, Floats], Mapping[str, Floats]]
"""Metrics of predictions under each row of volume weights [B, N], as name -> [B]."""

PERMUTATIONS = 2000
OTHER_METRICS = ("auc", "kappa_quadratic", "balanced_accuracy", "mae", "mean_error", "r2")


def group_draws(scores: Predictions, weights: Floats) -> dict[str, Floats]:
    """Return the metrics of a subgroup: of two classes AUC, both rates and the calibration slope.

    Of other predictions, those of `OTHER_METRICS` that they have.
    """
    every = metric_draws(scores, weights)
    if not isinstance(scores, Scores) or not scores.is_binary:
        return {name: every[name] for name in OTHER_METRICS if name in every}
    found = {name: every[name] for name in ("auc", "sensitivity", "specificity")}
    return found | {"calibration_slope": line_draws(scores, weights)["calibration_slope"]}


def evaluate_grouping(
    fits: Fits,
    groupings: Sequence[Grouping],
    *,
    min_subjects: int = 10,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the figures of each group, with intervals, and a test of the differences for each metric.

    Intervals are those of a bootstrap over the group's subjects, stratified by class. A group with fewer than
    `min_subjects` subjects, or with fewer than five of a class that it has, is listed with its counts only,
    and takes no part in the tests; nor does the group of missing cells.

    Args:
        fits: One model's predictions, one per fold and seed.
        groupings: Of the volumes of each fit, all of one column with the same names.
        min_subjects: Subjects below which a group has no figures.
        resamples: Of the bootstrap, and of the permutations.
        seed: Of both.
    """
    names = groupings[0].names
    blocks = [
        _build_block(
            *_select_group(fits, groupings, code),
            min_subjects=min_subjects,
            resamples=resamples,
            seed=seed,
        )
        for code in range(len(names))
    ]
    tested = [code for code, block in enumerate(blocks) if not block["too_small"] and names[code] != MISSING]
    p_values = compare_groups(fits, groupings, tested, permutations=resamples, seed=seed)
    return {"groups": blocks, "tests": {name: {"p": value} for name, value in p_values.items()}}


def adjust_tests(columns: Mapping[str, Mapping[str, Any]]) -> None:
    """Add to each test its p-value after Holm's correction over all columns and metrics, in place."""
    tests = [test for one in columns.values() for test in one["tests"].values() if test["p"] is not None]
    for test, adjusted in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = adjusted


def compare_groups(
    fits: Fits,
    groupings: Sequence[Grouping],
    codes: Sequence[int],
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> dict[str, float | None]:
    """Return for each metric the p-value of a permutation test that all groups score alike.

    The groups of subjects are permuted within subjects of the same class, with all volumes of a subject in
    a group together; the statistic is the variance of the metric between groups, weighted by subjects. None
    where there are not two groups in which the metric is defined.

    Args:
        fits: One model's predictions, one per fold and seed.
        groupings: Of the volumes of each fit.
        codes: The groups that are compared.
        permutations: Number of permutations.
        seed: Of the permutations.

    Source:
        DiCiccio et al. 2020, doi:10.1145/3394486.3403199.
    """
    units, rows, labels = _find_units(fits, groupings, codes)
    if len(set(units)) < 2:
        return {}
    permuted = _permute_within(np.array(units), labels, permutations, seed)  # [B + 1, U], the first as found
    statistics = _between_groups(fits, rows, permuted, sorted(set(units)))
    found: dict[str, float | None] = {}
    for name, values in statistics.items():
        drawn = values[1:][np.isfinite(values[1:])]
        is_defined = bool(np.isfinite(values[0])) and len(drawn) > 0
        # A tie in exact arithmetic may differ in the last bits.
        reached = int((drawn >= values[0] * (1 - 1e-9) - 1e-12).sum()) if is_defined else 0
        found[name] = (reached + 1) / (len(drawn) + 1) if is_defined else None
    return found


def resample_metrics(
    fits: Fits,
    metrics: MetricDraws,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    is_stratified: bool = True,
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Return each metric as the mean over fits, and its interval from a bootstrap over subjects.

    Args:
        fits: One model's predictions, one per fold and seed.
        metrics: What is computed.
        resamples: Number of resamples.
        seed: Of the draws.
        is_stratified: Whether every class keeps its number of subjects; a figure that depends on how frequent
            the classes are needs False.
    """
    points = mean_over_fits([metrics(fit, np.ones((1, len(fit)))) for fit in fits])
    _, indices = index_subjects(fits)
    block = max(1, BLOCK_SIZE // max(map(len, fits)))
    draws: dict[str, list[Floats]] = {name: [] for name in points}
    strata = subject_strata(fits)
    strata = strata if is_stratified else np.zeros_like(strata)
    for drawn in draw_subjects(strata, resamples=resamples, seed=seed, block=block):
        pairs = zip(fits, indices, strict=True)
        for name, values in mean_over_fits([metrics(fit, drawn[:, index]) for fit, index in pairs]).items():
            draws[name].append(values)
    return (
        {name: float(values[0]) for name, values in points.items()},
        {name: percentile_interval(np.concatenate(values)) for name, values in draws.items()},
    )


def _select_group(fits: Fits, groupings: Sequence[Grouping], code: int) -> tuple[str, Fits]:
    """Return the name of a group, and the rows of each fit that are in it; without empty fits."""
    pairs = [(fit, np.flatnonzero(one.codes == code)) for fit, one in zip(fits, groupings, strict=True)]
    return groupings[0].names[code], [select_rows(fit, rows) for fit, rows in pairs if len(rows)]


def _build_block(name: str, own: Fits, *, min_subjects: int, resamples: int, seed: int) -> dict[str, Any]:
    """Return the counts and figures of one group."""
    keys = {key: label for fit in own for key, label in zip(fit.keys, _classes_of(fit), strict=True)}
    block: dict[str, Any] = {"group": name, "n": len(keys), "subjects": len({key[0] for key in keys})}
    if isinstance(own[0], Scores) and own[0].is_binary:
        block["prevalence"] = sum(label == 1 for label in keys.values()) / len(keys)
    block["too_small"] = _describe_smallness(keys, min_subjects)
    if not block["too_small"]:
        values, intervals = resample_metrics(own, group_draws, resamples=resamples, seed=seed)
        block |= metric_block(values, intervals)
    return block


def _classes_of(fit: Predictions) -> list[int]:
    """Return the class of each row; of predictions other than classes 0, so that all are of one."""
    return fit.labels.tolist() if isinstance(fit, Scores) else [0] * len(fit)


def _describe_smallness(labels: Mapping[tuple[str, str], int], min_subjects: int) -> str:
    """Return why a group is too small for figures; empty where it is not."""
    subjects = {subject for subject, _ in labels}
    if len(subjects) < min_subjects:
        return f"fewer than {min_subjects} subjects"
    by_class = Counter(label for _, label in {(subject, label) for (subject, _), label in labels.items()})
    if len(by_class) > 1 and min(by_class.values()) < MIN_SUBJECTS:
        return f"fewer than {MIN_SUBJECTS} subjects of a class"
    return ""


def _find_units(
    fits: Fits, groupings: Sequence[Grouping], codes: Sequence[int]
) -> tuple[list[int], list[Integers], list[tuple[int, ...]]]:
    """Return the group of each unit (a subject in a group), the unit of each fit's rows, and their classes.

    A row outside the compared groups has the unit -1.
    """
    index: dict[tuple[str, int], int] = {}
    labels: list[set[int]] = []
    rows = []
    for fit, grouping in zip(fits, groupings, strict=True):
        own = np.full(len(fit), -1, np.int64)
        cells = zip(fit.subjects, grouping.codes, _classes_of(fit), strict=True)
        for row, (subject, code, label) in enumerate(cells):
            if code in codes:
                own[row] = index.setdefault((subject, int(code)), len(index))
                labels += [set()] if own[row] == len(labels) else []
                labels[own[row]].add(label)
        rows.append(own)
    return [code for _, code in index], rows, [tuple(sorted(one)) for one in labels]


def _permute_within(
    units: Integers, labels: Sequence[tuple[int, ...]], permutations: int, seed: int
) -> Integers:
    """Return the groups of the units [1 + permutations, U]: as found, then permuted within equal labels."""
    rng = np.random.default_rng(seed)
    permuted = np.tile(units, (permutations + 1, 1))
    for stratum in sorted(set(labels)):
        members = np.array([index for index, own in enumerate(labels) if own == stratum])
        permuted[1:, members] = rng.permuted(permuted[1:, members], axis=1)
    return permuted


def _between_groups(
    fits: Fits, rows: Sequence[Integers], permuted: Integers, codes: Sequence[int]
) -> dict[str, Floats]:
    """Return the weighted variance between groups of each metric [B], nan where it is not defined in each."""
    block = max(1, BLOCK_SIZE // max(map(len, fits)))
    starts = range(0, len(permuted), block)
    by_group = []
    for code in codes:
        blocks = [_score_group(fits, rows, permuted[start : start + block] == code) for start in starts]
        by_group.append({name: np.concatenate([one[name] for one in blocks]) for name in blocks[0]})
    sizes = np.array([(permuted[0] == code).sum() for code in codes], np.float64)[:, None]
    found = {}
    for name in by_group[0]:
        values = np.stack([one[name] for one in by_group])  # [G, B]
        mean = (sizes * values).sum(axis=0) / sizes.sum()
        found[name] = (sizes * (values - mean) ** 2).sum(axis=0) / sizes.sum()
    return found


def _score_group(fits: Fits, rows: Sequence[Integers], is_member: Flags) -> dict[str, Floats]:
    """Return each metric [B] of a group, given which units [B, U] are in it."""
    pairs = zip(fits, rows, strict=True)
    return mean_over_fits(
        [group_draws(fit, ((own >= 0) & is_member[:, own]).astype(np.float64)) for fit, own in pairs]
    )
