"""`task=classes`: one class of two or more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from voxlift.app.tasks.base import Head, Label, LinearOptions, Loss, ScoredRows, Task
from voxlift.data_pipelines.errors import ManifestError

if TYPE_CHECKING:
    from voxlift.app.config import DataSettings, TrainerSettings
    from voxlift.app.evaluation.scores import Scores
    from voxlift.data_pipelines.tables.manifest import Manifest, Record


def format_count(subjects: int, volumes: int) -> str:
    """Return a number of subjects, with that of their volumes where it differs."""
    return f"{subjects} ({volumes} volumes)" if volumes != subjects else f"{subjects}"


def count_classes(records: Sequence[Record], names: Sequence[str]) -> list[int]:
    """Return the number of records of each class."""
    return [sum(record.label == index for record in records) for index in range(len(names))]


@dataclass(frozen=True)
class Classes(Task):
    """Classes without an order: softmax, cross-entropy, AUC.

    Attributes:
        is_paired: Whether the two scans of a subject are compared with each other, for the forced choice.
        top_k: Of more classes than this, how many of the most probable ones the top-k accuracy counts.
    """

    is_paired: bool = False
    top_k: int = 5

    name = "classes"
    noun = "class"
    target = "classes"
    losses = ("cross_entropy", "focal")
    monitors: ClassVar[tuple[str, ...]] = ("auc", "loss", "balanced_accuracy", "accuracy")
    has_pairs = True
    is_nominal = True
    outputs_meaning = "scores whose softmax is the probability of each class"
    decision_rule = (
        "the most probable class; of two the second where its probability is at least the threshold"
    )

    def find_data_problems(self, data: DataSettings) -> list[str]:
        """Return a sentence where findings are named."""
        problem = (
            f"data.label_columns: task={self.name} reads one label, data.label_column; add task=findings for "
            "several yes/no labels of a scan."
        )
        return [problem] if data.label_columns else []

    def names(self, data: DataSettings) -> tuple[str, ...]:
        """Return the class names."""
        return tuple(data.classes)

    def labels(self, records: Sequence[Record]) -> NDArray[Any]:
        """Return class indices [N]."""
        return np.array([record.label for record in records], np.int64)

    def with_names(self, data: DataSettings, names: tuple[str, ...]) -> DataSettings:
        """Return settings with the class names."""
        return replace(data, classes=list(names))

    def check_records(self, manifest: Manifest) -> None:
        """Pass when pairs are not asked for, or a subject has scans of both classes.

        Raises:
            ManifestError: There are no pairs, or not two classes.
        """
        labels: dict[str, set[int]] = {}
        for record in manifest.records:
            labels.setdefault(record.subject, set()).add(record.label)
        if self.is_paired and (len(manifest.classes) != 2 or {0, 1} not in labels.values()):
            raise ManifestError(
                "evaluation.paired_within=subject: expected two classes, and subjects with scans of both; "
                f"{manifest.source} has {len(manifest.classes)} classes, and of {len(labels)} subjects "
                f"{sum(len(own) > 1 for own in labels.values())} with more than one. Name the column of the "
                "subjects in data.subject_column, or remove the key."
            )

    def find_lost(self, names: tuple[str, ...], labels: NDArray[Any]) -> list[str]:
        """Return the classes without a label."""
        return [f"the class {name}" for index, name in enumerate(names) if index not in labels]

    def split_rows(self, manifest: Manifest, splits: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the subjects of each class, with the volumes where they are more."""
        from voxlift.data_pipelines.tables.split_checks import split_table

        counts = split_table(manifest, splits)
        rows = [("class", *dict.fromkeys(count.split for count in counts))]
        for name in manifest.classes:
            own = [count for count in counts if count.class_name == name]
            rows.append((name, *(format_count(count.subjects, count.volumes) for count in own)))
        return rows

    def fewest_subjects(self, manifest: Manifest, splits: Sequence[str]) -> tuple[int, str]:
        """Return the smallest number of subjects of a class in a split."""
        from voxlift.data_pipelines.tables.split_checks import split_table

        return min(count.subjects for count in split_table(manifest, splits)), " of each class"

    def describe_visible_difference(
        self, records: Sequence[Record], names: tuple[str, ...], *, margin: float | None
    ) -> str:
        """Return the difference of AUC; empty where a class has no subject."""
        from voxlift.app.evaluation.paired import MARGIN
        from voxlift.app.evaluation.sample_size import (
            ASSUMED_AUC,
            planned_subjects,
            smallest_visible_difference,
        )

        counts, aim = count_classes(records, names), margin or MARGIN
        visible = smallest_visible_difference(counts)
        if math.isnan(visible):
            return ""
        listed = ", ".join(f"{count} {name}" for name, count in zip(names, counts, strict=True))
        return (
            f"With {sum(counts)} test subjects ({listed}), differences of AUC below {visible:.2f} cannot be "
            f"told; one of {aim:g} needs about {planned_subjects(aim)} of each class for 80 % power. "
            "voxlift-study study=sample_size computes it from results. "
            f"Assumed: AUC {ASSUMED_AUC:g}"
        )

    def strata(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        """Return the class indices."""
        return labels

    def plan_head(self, names: tuple[str, ...], labels: NDArray[Any]) -> Head:  # noqa: ARG002 - as all tasks
        """Return a logit for each class."""
        return Head(len(names))

    def build_loss(
        self,
        trainer: TrainerSettings,
        names: tuple[str, ...],
        head: Head,  # noqa: ARG002 - as all tasks
        *,
        soft_labels: bool,
    ) -> Loss:
        """Return cross-entropy or focal loss."""
        from voxlift.models.losses import build_loss

        return build_loss(
            self.choose_loss(trainer.loss),
            classes=len(names),
            focal_gamma=trainer.focal_gamma,
            label_smoothing=trainer.label_smoothing,
            soft_labels=soft_labels,
        )

    def fit_linear(
        self, features: NDArray[np.float64], labels: NDArray[Any], fit: LinearOptions
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return a logistic regression; the log odds of two classes are divided between both."""
        from sklearn.linear_model import LogisticRegression

        regression = LogisticRegression(
            C=fit.strength,
            class_weight="balanced" if fit.balance else None,
            max_iter=fit.max_iterations,
        )
        regression.fit(features, labels)
        coefficients, intercept = regression.coef_.T, regression.intercept_
        if len(intercept) == 1:
            halves = np.array([-0.5, 0.5])
            return coefficients * halves, intercept * halves
        return coefficients, intercept

    def linear_columns(self, weights: NDArray[Any], names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        """Return the logits of each class; of two classes the log odds of the second."""
        if len(names) == 2:
            return {"": weights[..., 1] - weights[..., 0]}
        return super().linear_columns(weights, names)

    def predict(self, outputs: NDArray[Any]) -> NDArray[np.float64]:
        """Return class probabilities [N, K]."""
        from scipy.special import softmax

        return np.asarray(softmax(outputs.astype(np.float64), axis=1))

    def build_scores(
        self, rows: ScoredRows, predictions: NDArray[np.float64], names: tuple[str, ...]
    ) -> Scores:
        """Return class probabilities beside the class indices."""
        from voxlift.app.evaluation.scores import Scores

        return Scores(
            rows.subjects,
            rows.labels,
            predictions,
            names,
            rows.items,
            is_paired=self.is_paired,
            top_k=self.top_k,
        )

    def validation_metrics(self, scores: Scores, head: Head) -> dict[str, float]:  # noqa: ARG002 - as all tasks
        """Return `loss`, which is the cross-entropy, and the other monitors."""
        from voxlift.app.evaluation.metrics import score_metrics

        metrics = score_metrics(scores)
        names = ("auc", "accuracy", "balanced_accuracy")
        return {"loss": metrics["log_loss"]} | {name: metrics[name] for name in names}

    def evaluate(self, scores: Mapping[str, Scores]) -> dict[str, Any]:
        """Return metrics with the threshold of two classes and the temperature."""
        from voxlift.app.evaluation.evaluate import evaluate_splits

        return evaluate_splits(scores)

    def decide(self, scores: Scores, metrics: Mapping[str, Any]) -> Scores:
        """Return the scores with the threshold that was chosen on validation."""
        from voxlift.app.evaluation.scores import with_threshold

        threshold = metrics["threshold"]
        return scores if threshold is None else with_threshold(scores, float(threshold))

    def carry_over(self, metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the mean threshold of two classes."""
        chosen = [one for own in metrics for one in self.thresholds(own)]
        if not chosen:
            return {"threshold": None, "threshold_reason": metrics[0].get("threshold_reason")}
        reason = "carried over from the run, where it was chosen on validation"
        return {"threshold": float(np.mean(chosen)), "threshold_reason": reason}

    def thresholds(self, metrics: Mapping[str, Any]) -> tuple[float, ...]:
        """Return the threshold of two classes, where one was chosen."""
        threshold = metrics.get("threshold")
        return () if threshold is None else (float(threshold),)

    def decide_rows(self, predictions: NDArray[np.float64], thresholds: Sequence[float]) -> NDArray[np.int64]:
        """Return class indices [N]: by the threshold of two classes, else the most probable."""
        if thresholds and predictions.shape[1] == 2:
            return np.asarray(predictions[:, 1] >= thresholds[0], np.int64)
        return np.asarray(predictions.argmax(axis=1), np.int64)

    def describe_decision(self, names: tuple[str, ...], thresholds: Sequence[float]) -> str:
        """Return the rule."""
        if not thresholds or len(names) != 2:
            return "the most probable class"
        return (
            f"{names[1]} where p_{names[1]} is at least {thresholds[0]:.3f} (threshold chosen on validation)"
        )

    def scan_columns(self, names: tuple[str, ...]) -> list[str]:
        """Return `decision` and `p_NAME` of each class."""
        return ["decision", *(f"p_{name}" for name in names)]

    def scan_cells(
        self, prediction: NDArray[np.float64], decision: NDArray[np.int64], names: tuple[str, ...]
    ) -> dict[str, Any]:
        """Return the decided class and the probabilities."""
        cells = {f"p_{name}": float(p) for name, p in zip(names, prediction, strict=True)}
        return {"decision": names[int(decision)], **cells}

    def prediction_cells(self, scores: Scores) -> list[dict[str, Any]]:
        """Return `label` and a probability `p_NAME` for each class."""
        columns = [f"p_{name}" for name in scores.classes]
        return [
            {"label": scores.classes[label]} | dict(zip(columns, map(float, p), strict=True))
            for label, p in zip(scores.labels, scores.probabilities, strict=True)
        ]

    def label_cells(self, label: int, targets: Sequence[float], names: tuple[str, ...]) -> dict[str, str]:  # noqa: ARG002 - as all tasks
        """Return the class name in `label`."""
        return {"label": names[label]}

    def groups_of(self, row: Mapping[str, str], names: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG002 - as all
        """Return the class."""
        return (row["label"],)

    def read_label(self, row: Mapping[str, str], names: tuple[str, ...]) -> Label:
        """Return the class index."""
        return names.index(row["label"]), ()
