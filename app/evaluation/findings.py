"""Several yes/no findings a volume, cells of which may be missing: metrics per finding and their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from voxlift.app.evaluation.delong import DeLong, delong_difference, delong_interval
from voxlift.app.evaluation.evaluate import choose_validation_threshold
from voxlift.app.evaluation.metrics import class_metric_draws, metric_draws
from voxlift.app.evaluation.scores import (
    SUM_TOLERANCE,
    Flags,
    Floats,
    Predictions,
    Scores,
    ScoresError,
)
from voxlift.data_pipelines.errors import list_some

MACRO_METRICS = (  # a mean over findings; PPV and NPV are undefined for a finding that is never predicted
    "auc",
    "average_precision",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "f1",
    "log_loss",
    "brier",
    "ece",
)


@dataclass(frozen=True, eq=False)
class Findings(Predictions):
    """Labels and predicted probabilities of F findings in N volumes, immutable.

    Attributes:
        subjects: N subject names.
        labels: [N, F] float64: 1 present, 0 absent, nan unknown.
        probabilities: [N, F] float64 in 0..1, of presence; the findings do not exclude each other.
        names: F names of findings.
        items: As in `Scores`.
        thresholds: F probabilities at or above which a finding is predicted; empty: 0.5 for all.
    """

    subjects: tuple[str, ...]
    labels: Floats
    probabilities: Floats
    names: tuple[str, ...]
    items: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = ()
    headline: ClassVar[tuple[str, ...]] = ("auc", "average_precision", "balanced_accuracy")

    def __post_init__(self) -> None:
        set_field = object.__setattr__  # the only way to normalise the values of a frozen dataclass
        set_field(self, "subjects", tuple(str(subject) for subject in self.subjects))
        set_field(self, "items", tuple(str(item) for item in self.items))
        set_field(self, "names", tuple(str(name) for name in self.names))
        set_field(self, "thresholds", tuple(map(float, self.thresholds)) or (0.5,) * len(self.names))
        for name in ("labels", "probabilities"):
            set_field(self, name, np.array(getattr(self, name), dtype=np.float64))
            getattr(self, name).setflags(write=False)
        _check_findings(self)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the findings."""
        return self.names

    @property
    def is_known(self) -> Flags:
        """[N, F] whether the table holds a value."""
        return ~np.isnan(self.labels)

    @property
    def decisions(self) -> Floats:
        """[N, F] 1 where a finding is predicted, by its own threshold, else 0."""
        return (self.probabilities >= np.array(self.thresholds)).astype(np.float64)

    def finding(self, index: int) -> Scores:
        """Return one finding as two classes, `no` and its name, on the volumes where it is known.

        Raises:
            ScoresError: It is known for no volume.
        """
        rows = np.flatnonzero(self.is_known[:, index])
        if not len(rows):
            raise ScoresError(f"{self.names[index]} is unknown for every volume of this split.")
        present = self.probabilities[rows, index]
        return Scores(
            subjects=tuple(self.subjects[row] for row in rows),
            labels=self.labels[rows, index].astype(np.int64),
            probabilities=np.stack([1 - present, present], axis=1),
            classes=("no", self.names[index]),
            items=tuple(self.items[row] for row in rows) if self.items else (),
            threshold=self.thresholds[index],
        )

    def has_both_outcomes(self, index: int) -> bool:
        """Return whether a finding is present in some volume and absent in another."""
        known = self.labels[self.is_known[:, index], index]
        return bool((known == 1).any() and (known == 0).any())


def with_thresholds(findings: Findings, thresholds: Sequence[float]) -> Findings:
    """Return the same findings with other decision thresholds, one for each."""
    return replace(findings, thresholds=tuple(thresholds))


def choose_thresholds(validation: Findings) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Return the threshold of each finding with the best balanced accuracy on validation, and the reason.

    It is 0.5 where validation lacks an outcome of the finding.
    """
    thresholds, reasons = [], []
    for index in range(len(validation.names)):
        try:
            threshold, reason = choose_validation_threshold(validation.finding(index))
        except ScoresError as error:
            threshold, reason = None, f"0.5, since {error}"
        thresholds.append(0.5 if threshold is None else threshold)
        reasons.append(reason)
    return tuple(thresholds), tuple(reasons)


@metric_draws.register
def finding_metric_draws(findings: Findings, weights: Floats) -> dict[str, Floats]:
    """Return `metric_draws` of findings: `auc[NAME]` ... over the known cells of each, and means `auc` ...

    The means are unweighted, over the findings of which these volumes hold both outcomes. A resample in which
    one of them is undefined has no mean.
    """
    draws: dict[str, Floats] = {}
    averaged = []
    for index, name in enumerate(findings.names):
        rows = findings.is_known[:, index]
        if not rows.any():
            continue
        own = class_metric_draws(findings.finding(index), weights[:, rows])
        draws |= {f"{metric}[{name}]": values for metric, values in own.items() if "@" not in metric}
        if findings.has_both_outcomes(index):
            averaged.append(own)
    nothing = np.full(len(weights), np.nan)
    means = {
        metric: np.mean([own[metric] for own in averaged], axis=0) if averaged else nothing
        for metric in MACRO_METRICS
    }
    return means | draws


def count_findings(findings: Findings) -> dict[str, dict[str, int]]:
    """Return for each finding how many volumes have it, have it not, and are unknown."""
    present = (findings.labels == 1).sum(axis=0)
    absent = (findings.labels == 0).sum(axis=0)
    unknown = (~findings.is_known).sum(axis=0)
    return {
        name: {"present": int(p), "absent": int(a), "unknown": int(u)}
        for name, p, a, u in zip(findings.names, present, absent, unknown, strict=True)
    }


def delong_intervals(findings: Findings, *, level: float = 0.95) -> dict[str, tuple[float, float]]:
    """Return DeLong's interval of the AUC of each finding with two subjects or more of either outcome."""
    intervals = {}
    for index, name in enumerate(findings.names):
        try:
            intervals[name] = delong_interval(findings.finding(index), level=level)
        except ScoresError:
            continue
    return intervals


def compare_findings(
    first: Sequence[Findings],
    second: Sequence[Findings],
    *,
    fit_seeds: Sequence[int] | None = None,
    level: float = 0.95,
) -> dict[str, DeLong | None]:
    """Return DeLong's test of each finding's AUC, on its known cells; None where it is undefined.

    Args:
        first: The first model, one entry per fold and seed.
        second: The second, on the same volumes.
        fit_seeds: The training seed of each fit; None: all fits are of one seed.
        level: Coverage of the intervals.
    """
    tests: dict[str, DeLong | None] = {}
    for index, name in enumerate(first[0].names):
        try:
            pair = [[fit.finding(index) for fit in fits] for fits in (first, second)]
            tests[name] = delong_difference(*pair, fit_seeds=fit_seeds, level=level)
        except ScoresError:
            tests[name] = None
    return tests


def rarest_outcome(fits: Sequence[Findings]) -> int:
    """Return the number of subjects of the rarest outcome that occurs, of any finding."""
    counts = []
    for index in range(len(fits[0].names)):
        for outcome in (0, 1):
            found = {
                subject
                for fit in fits
                for subject, label in zip(fit.subjects, fit.labels[:, index], strict=True)
                if label == outcome
            }
            counts.append(len(found))
    return min((count for count in counts if count), default=0)


def _check_findings(findings: Findings) -> None:
    rows, columns = len(findings.subjects), len(findings.names)
    found = (findings.labels.shape, findings.probabilities.shape)
    if found != ((rows, columns), (rows, columns)) or (findings.items and len(findings.items) != rows):
        raise ScoresError(
            f"Expected labels and probabilities of {rows} subjects x {columns} findings, received labels "
            f"{found[0]}, probabilities {found[1]} and {len(findings.items)} items."
        )
    if not rows or not columns or len(findings.thresholds) != columns:
        raise ScoresError(
            f"Expected at least one volume and one finding with a threshold each, received {rows} volumes, "
            f"{columns} findings and {len(findings.thresholds)} thresholds."
        )
    wrong_label = (findings.is_known & ~np.isin(findings.labels, (0, 1))).any(axis=1)
    with np.errstate(invalid="ignore"):
        p = findings.probabilities
        wrong_value = (~np.isfinite(p) | (p < 0) | (p > 1 + SUM_TOLERANCE)).any(axis=1)
    for wrong, expected in ((wrong_label, "labels 0, 1 or missing"), (wrong_value, "probabilities in 0..1")):
        if wrong.any():
            names = list_some([findings.subjects[row] for row in np.flatnonzero(wrong)])
            raise ScoresError(f"Expected {expected}; received others for subjects {names}.")
