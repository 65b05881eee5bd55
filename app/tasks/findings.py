"""`task=findings`: several yes/no labels of a scan, of which some may be unknown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.tasks.base import Head, Label, LinearOptions, Loss, ScoredRows, Task

if TYPE_CHECKING:
    from voxlift.app.config import DataSettings, TrainerSettings
    from voxlift.app.evaluation.findings import Findings
    from voxlift.data_pipelines.tables.manifest import Manifest, Record


class FindingsTask(Task):
    """Findings that do not exclude each other: a sigmoid each, and a loss over the known cells."""

    name = "findings"
    noun = "finding"
    target = "findings"
    losses = ("binary_cross_entropy", "focal")
    monitors = ("auc", "loss", "average_precision", "balanced_accuracy")
    activation = "sigmoid"
    map_kind = "finding"
    outputs_meaning = "scores whose sigmoid is the probability of each finding"
    decision_rule = "a finding whose probability is at least its threshold"

    def find_data_problems(self, data: DataSettings) -> list[str]:
        """Return sentences where the columns are not named, or keys of classes are."""
        problems = []
        if data.name == "medmnist3d":
            problems.append("task=findings: data=medmnist3d has one label; use task=classes.")
        elif not data.label_columns and data.name != "phantom":
            problems.append(
                "data.label_columns: task=findings needs one column for each finding, as in "
                "'data.label_columns=[bleed,fracture]'."
            )
        if len(set(data.label_columns)) < len(data.label_columns):
            problems.append("data.label_columns: expected each column once.")
        problems += [
            f"data.{key}: task=findings has no classes; each column of data.label_columns is yes or no."
            for key in ("classes", "label_bins")
            if getattr(data, key)
        ]
        return problems

    def names(self, data: DataSettings) -> tuple[str, ...]:
        """Return the columns."""
        return tuple(data.label_columns)

    def labels(self, records: Sequence[Record]) -> NDArray[Any]:
        """Return 1, 0 or nan, float64 [N, T]."""
        targets = np.array([record.targets for record in records], np.float64)
        return targets.reshape(len(records), -1 if records else 0)

    def label_columns(self, data: DataSettings) -> tuple[str, ...]:
        """Return the columns of the findings."""
        return tuple(data.label_columns)

    def with_names(self, data: DataSettings, names: tuple[str, ...]) -> DataSettings:
        """Return settings with the columns."""
        return replace(data, label_columns=list(names))

    def find_lost(self, names: tuple[str, ...], labels: NDArray[Any]) -> list[str]:
        """Return the findings that are always or never present."""
        return [
            f"the finding {name}, {word}"
            for index, name in enumerate(names)
            for outcome, word in ((1, "present"), (0, "absent"))
            if not (labels[:, index] == outcome).any()
        ]

    def split_rows(self, manifest: Manifest, splits: Sequence[str]) -> list[tuple[str, ...]]:
        """Return how many subjects have each finding, and how many lack it."""
        from voxlift.data_pipelines.tables.split_checks import count_findings

        counts = count_findings(manifest, splits)
        present = list(dict.fromkeys(split for split, _ in counts))
        rows = [("finding", *(f"{split}: with, without" for split in present))]
        for name in manifest.classes:
            pairs = [counts[split, name] for split in present]
            rows.append((name, *(f"{has}, {lacks}" for has, lacks in pairs)))
        return rows

    def fewest_subjects(self, manifest: Manifest, splits: Sequence[str]) -> tuple[int, str]:
        """Return the smallest number of subjects with or without a finding in a split."""
        from voxlift.data_pipelines.tables.split_checks import count_findings

        counts = count_findings(manifest, splits)
        return min(min(pair) for pair in counts.values()), " with and without each finding"

    def describe_visible_difference(
        self,
        records: Sequence[Record],
        names: tuple[str, ...],  # noqa: ARG002 - as all tasks
        *,
        margin: float | None,
    ) -> str:
        """Return the difference of the mean AUC of findings; that of dependent findings is an upper bound."""
        from voxlift.app.evaluation.paired import MARGIN
        from voxlift.app.evaluation.sample_size import (
            ASSUMED_AUC,
            planned_subjects,
            smallest_visible_difference,
        )

        aim = margin or MARGIN
        outcomes = [[int((own == value).sum()) for value in (0, 1)] for own in self.labels(records).T]
        visible = [one for one in map(smallest_visible_difference, outcomes) if math.isfinite(one)]
        if not visible:
            return ""
        return (
            f"With {len(records)} test subjects, differences of the mean AUC of the findings below "
            f"{np.mean(visible):.2f} cannot be told, somewhat smaller ones if the findings are independent. "
            f"One of {aim:g} in a finding needs about {planned_subjects(aim)} subjects with it and as many "
            f"without it for 80 % power. Assumed: AUC {ASSUMED_AUC:g}"
        )

    def strata(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        """Return a group for each rarest finding of a volume, and one for volumes without any."""
        order = np.argsort(np.nansum(labels, axis=0))  # rarest first
        present = labels[:, order] == 1
        rarest = np.where(present.any(axis=1), order[present.argmax(axis=1)] + 1, 0)
        _, groups = np.unique(rarest, return_inverse=True)
        return groups.astype(np.int64)

    def plan_head(self, names: tuple[str, ...], labels: NDArray[Any]) -> Head:
        """Return a logit for each finding, which starts from the log odds of its frequency in training."""
        known = np.isfinite(labels).sum(axis=0)
        share = (np.nansum(labels, axis=0) + 0.5) / (known + 1.0)
        return Head(len(names), tuple(float(odds) for odds in np.log(share / (1 - share))))

    def start_head(self, network: Any, head: Head) -> None:  # noqa: ANN401 - untyped Keras
        """Set the biases."""
        from voxlift.models.heads import set_bias

        set_bias(network, head.start)

    def build_loss(
        self,
        trainer: TrainerSettings,
        names: tuple[str, ...],  # noqa: ARG002 - as all tasks
        head: Head,  # noqa: ARG002 - as all tasks
        *,
        soft_labels: bool,  # noqa: ARG002 - as all tasks
    ) -> Loss:
        """Return binary cross-entropy or focal loss of the known cells."""
        from voxlift.models.losses import build_findings_loss

        return build_findings_loss(
            self.choose_loss(trainer.loss),
            focal_gamma=trainer.focal_gamma,
            label_smoothing=trainer.label_smoothing,
        )

    def fit_linear(
        self, features: NDArray[np.float64], labels: NDArray[Any], fit: LinearOptions
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return a logistic regression for each finding, on the volumes where it is known."""
        from sklearn.linear_model import LogisticRegression

        fitted = []
        for column in labels.T:
            known = np.isfinite(column)
            regression = LogisticRegression(
                C=fit.strength,
                class_weight="balanced" if fit.balance else None,
                max_iter=fit.max_iterations,
            )
            fitted.append(regression.fit(features[known], column[known].astype(np.int64)))
        coefficients = np.stack([one.coef_[0] for one in fitted], axis=1)
        return coefficients, np.array([one.intercept_[0] for one in fitted])

    def predict(self, outputs: NDArray[Any]) -> NDArray[np.float64]:
        """Return the probability of each finding [N, T]."""
        from scipy.special import expit

        return np.asarray(expit(outputs.astype(np.float64)))

    def build_scores(
        self, rows: ScoredRows, predictions: NDArray[np.float64], names: tuple[str, ...]
    ) -> Findings:
        """Return probabilities beside 1, 0 or nan."""
        from voxlift.app.evaluation.findings import Findings

        return Findings(rows.subjects, rows.labels, predictions, names, rows.items)

    def validation_metrics(self, scores: Findings, head: Head) -> dict[str, float]:  # noqa: ARG002 - as all tasks
        """Return `loss`, the cross-entropy of the known cells, and the other monitors, over all findings."""
        from voxlift.app.evaluation.metrics import score_metrics

        return self.list_monitors(_cross_entropy(scores), score_metrics(scores))

    def evaluate(self, scores: Mapping[str, Findings]) -> dict[str, Any]:
        """Return metrics, with a threshold for each finding."""
        from voxlift.app.evaluation.evaluate import evaluate_blocks
        from voxlift.app.evaluation.findings import choose_thresholds, delong_intervals, with_thresholds

        thresholds, reasons = choose_thresholds(scores["val"])
        names = scores["val"].names
        decided = {split: with_thresholds(one, thresholds) for split, one in scores.items()}
        blocks = evaluate_blocks(decided)
        for split in decided.keys() & blocks.keys():
            blocks[split]["intervals_delong"] = {
                f"auc[{name}]": list(pair) for name, pair in delong_intervals(decided[split]).items()
            }
        return {
            "task": self.name,
            "thresholds": dict(zip(names, thresholds, strict=True)),
            "threshold_reasons": dict(zip(names, reasons, strict=True)),
            **blocks,
        }

    def decide(self, scores: Findings, metrics: Mapping[str, Any]) -> Findings:
        """Return the scores with the thresholds that were chosen on validation."""
        from voxlift.app.evaluation.findings import with_thresholds

        return with_thresholds(scores, [float(metrics["thresholds"][name]) for name in scores.names])

    def carry_over(self, metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the mean threshold of each finding."""
        names = list(metrics[0]["thresholds"])
        chosen = {name: float(np.mean([own["thresholds"][name] for own in metrics])) for name in names}
        reason = "carried over from the run, where it was chosen on validation"
        return {
            **super().carry_over(metrics),
            "thresholds": chosen,
            "threshold_reasons": dict.fromkeys(names, reason),
        }

    def thresholds(self, metrics: Mapping[str, Any]) -> tuple[float, ...]:
        """Return the threshold of each finding."""
        return tuple(float(value) for value in metrics["thresholds"].values())

    def decide_rows(self, predictions: NDArray[np.float64], thresholds: Sequence[float]) -> NDArray[np.int64]:
        """Return 1 or 0 for each finding [N, T]."""
        return (predictions >= np.array(thresholds or (0.5,))).astype(np.int64)

    def describe_decision(self, names: tuple[str, ...], thresholds: Sequence[float]) -> str:
        """Return the rule of each finding."""
        rules = ", ".join(f"{name} {value:.3f}" for name, value in zip(names, thresholds, strict=True))
        return f"a finding where its probability is at least its threshold (chosen on validation): {rules}"

    def scan_columns(self, names: tuple[str, ...]) -> list[str]:
        """Return `decision_NAME` and `p_NAME` of each finding."""
        return [*(f"decision_{name}" for name in names), *(f"p_{name}" for name in names)]

    def scan_cells(
        self, prediction: NDArray[np.float64], decision: NDArray[np.int64], names: tuple[str, ...]
    ) -> dict[str, Any]:
        """Return 1 or 0, and the probability, of each finding."""
        decided = {f"decision_{name}": int(one) for name, one in zip(names, decision, strict=True)}
        return decided | {f"p_{name}": float(p) for name, p in zip(names, prediction, strict=True)}

    def decided_names(self, row: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:
        """Return the findings that are decided to be present."""
        return [name for name in names if str(row.get(f"decision_{name}")) == "1"]

    def set_columns(self, names: tuple[str, ...]) -> list[str]:
        """Return `set_NAME` for each finding."""
        return [f"set_{name}" for name in names]

    def set_cells(
        self, prediction: NDArray[np.float64], limits: Mapping[str, float], names: tuple[str, ...]
    ) -> dict[str, Any]:
        """Return `0`, `1`, `0|1` or nothing for each finding."""
        cells = {}
        for name, p in zip(names, prediction, strict=True):
            nonconformity = (p, 1 - p)  # of absence, of presence
            held = [str(value) for value in (0, 1) if nonconformity[value] <= limits[f"{name}={value}"]]
            cells[f"set_{name}"] = "|".join(held)
        return cells

    def map_output(
        self,
        prediction: NDArray[np.float64],
        decision: NDArray[np.int64],  # noqa: ARG002 - as all tasks
        asked: int | None,
    ) -> int:
        """Return the finding that was asked for, else the most probable one."""
        return int(prediction.argmax()) if asked is None else asked

    def prediction_cells(self, scores: Findings) -> list[dict[str, Any]]:
        """Return `label_NAME` (1, 0 or empty) and a probability `p_NAME` for each finding."""
        columns = [f"p_{name}" for name in scores.names]
        return [
            self.label_cells(0, labels, scores.names) | dict(zip(columns, map(float, p), strict=True))
            for labels, p in zip(scores.labels, scores.probabilities, strict=True)
        ]

    def label_cells(self, label: int, targets: Sequence[float], names: tuple[str, ...]) -> dict[str, str]:  # noqa: ARG002 - as all tasks
        """Return 1, 0 or an empty cell for each finding, in `label_NAME`."""
        return {
            f"label_{name}": "" if math.isnan(value) else f"{value:.0f}"
            for name, value in zip(names, targets, strict=True)
        }

    def groups_of(self, row: Mapping[str, str], names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the findings that are present."""
        present = tuple(name for name in names if row[f"label_{name}"] == "1")
        return present or ("(no finding)",)

    def read_label(self, row: Mapping[str, str], names: tuple[str, ...]) -> Label:
        """Return 0 and the findings."""
        cells = [row[f"label_{name}"] for name in names]
        return 0, tuple(float(cell) if cell else math.nan for cell in cells)


def _cross_entropy(scores: Findings) -> float:
    """Return the mean over volumes of what `models.losses.build_findings_loss` gives."""
    p = np.clip(scores.probabilities, np.finfo(np.float64).eps, 1 - np.finfo(np.float64).eps)
    terms = np.where(scores.labels == 1, -np.log(p), -np.log1p(-p))
    return float(np.where(np.isnan(scores.labels), 0.0, terms).mean())
