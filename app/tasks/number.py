"""`task=number`: a number, such as an age, a volume or a score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.tasks.base import Head, Label, LinearOptions, Loss, ScoredRows, Task
from voxlift.app.tasks.classes import format_count

if TYPE_CHECKING:
    from voxlift.app.config import DataSettings, TrainerSettings, TrainSettings
    from voxlift.app.evaluation.numbers import Numbers
    from voxlift.data_pipelines.tables.manifest import Manifest, Record


@dataclass(frozen=True)
class NumberTask(Task):
    """A number in its own unit; the dense layer learns it standardised on the training subjects.

    Attributes:
        unit: For tables and figures; empty: none.
    """

    unit: str = ""

    name = "number"
    noun = "number"
    target = "number"
    losses = ("huber", "squared")
    monitors = ("mae", "loss", "rmse", "r2", "pearson", "spearman")
    lower_is_better = frozenset({"loss", "mae", "rmse"})
    activation = "linear"
    map_kind = "number"
    output_layer = "TargetScale"
    has_probabilities = False
    outputs_meaning = "the number in its own unit"
    decision_rule = "the number is the prediction"

    def find_problems(self, settings: TrainSettings) -> list[str]:
        """Return also a sentence where labels are to be smoothed."""
        problems = super().find_problems(settings)
        if settings.trainer.label_smoothing:
            problems.append(
                f"trainer.label_smoothing={settings.trainer.label_smoothing:g}: expected 0 for task=number, "
                "which has no classes."
            )
        return problems

    def find_data_problems(self, data: DataSettings) -> list[str]:
        """Return sentences where keys of classes or findings are set."""
        problems = [
            f"data.{key}: task=number reads the number in data.label_column as it is; remove the key, or use "
            f"task={other}."
            for key, other in (
                ("classes", "classes"),
                ("label_bins", "classes or task=grades"),
                ("label_columns", "findings"),
            )
            if getattr(data, key)
        ]
        if data.name == "medmnist3d":
            problems.append("task=number: data=medmnist3d has classes; use task=classes.")
        return problems

    def names(self, data: DataSettings) -> tuple[str, ...]:
        """Return the column."""
        return (data.label_column,)

    def labels(self, records: Sequence[Record]) -> NDArray[Any]:
        """Return the numbers, float64 [N, 1]."""
        targets = np.array([record.targets for record in records], np.float64)
        return targets.reshape(len(records), -1 if records else 0)

    def with_names(self, data: DataSettings, names: tuple[str, ...]) -> DataSettings:
        """Return settings with the column."""
        return replace(data, label_column=names[0])

    def find_lost(self, names: tuple[str, ...], labels: NDArray[Any]) -> list[str]:
        """Return the number where it never differs."""
        return [f"{names[0]}, which must differ"] if len(np.unique(labels)) < 2 else []

    def split_rows(self, manifest: Manifest, splits: Sequence[str]) -> list[tuple[str, ...]]:
        """Return subjects, mean, standard deviation and range of the number."""
        from voxlift.data_pipelines.tables.rows import CALIBRATION, SPLITS

        present = [split for split in (*SPLITS, CALIBRATION) if split in splits]
        pairs = list(zip(manifest.records, splits, strict=True))
        values = {
            split: np.array([one.targets[0] for one, own in pairs if own == split]) for split in present
        }
        subjects = {split: len({one.subject for one, own in pairs if own == split}) for split in present}
        return [
            (manifest.classes[0], *present),
            ("subjects", *(format_count(subjects[split], len(values[split])) for split in present)),
            ("mean \N{PLUS-MINUS SIGN} SD", *(_format_spread(values[split]) for split in present)),
            ("range", *(f"{values[split].min():.4g} to {values[split].max():.4g}" for split in present)),
        ]

    def fewest_subjects(self, manifest: Manifest, splits: Sequence[str]) -> tuple[int, str]:
        """Return the smallest number of subjects of a split."""
        own = {(split, one.subject) for one, split in zip(manifest.records, splits, strict=True)}
        return min(Counter(split for split, _ in own).values()), ""

    def describe_visible_difference(
        self,
        records: Sequence[Record],
        names: tuple[str, ...],  # noqa: ARG002 - as all tasks
        *,
        margin: float | None,
    ) -> str:
        """Return the difference of the mean absolute error; empty with fewer than two subjects."""
        from voxlift.app.evaluation.sample_size import DifferenceVariance, planned_error, required_subjects

        if len(records) < 2:
            return ""
        error, per_subject = planned_error([record.targets[0] for record in records])
        variance, aim = DifferenceVariance(per_subject), margin or error / 10
        in_unit = f" {self.unit}" if self.unit else ""
        return (
            f"With {len(records)} test subjects, differences of the mean absolute error below "
            f"{variance.width(len(records)) / 2:.3g}{in_unit} cannot be told; one of {aim:.3g} needs about "
            f"{required_subjects(variance, aim, power=0.8)} for 80 % power. Assumed: errors as of always "
            f"predicting the median, {error:.3g}{in_unit}"
        )

    def strata(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        """Return the quantile of each number."""
        from voxlift.data_pipelines.tables.splits import quantile_bins  # reads images: not for a check

        _, groups = np.unique(quantile_bins(labels[:, 0].tolist()), return_inverse=True)
        return groups.astype(np.int64)

    def plan_head(self, names: tuple[str, ...], labels: NDArray[Any]) -> Head:
        """Return one output, with mean and standard deviation of the training subjects."""
        values = labels[:, 0].astype(np.float64)
        return Head(len(names), (float(values.mean()), float(values.std()) or 1.0))

    def finish(self, network: Any, head: Head) -> Any:  # noqa: ANN401 - untyped Keras
        """Return the network with its output in the number's unit."""
        from voxlift.models.heads import append_scale

        offset, scale = head.start
        return append_scale(network, scale=scale, offset=offset)

    def build_loss(
        self,
        trainer: TrainerSettings,
        names: tuple[str, ...],  # noqa: ARG002 - as all tasks
        head: Head,
        *,
        soft_labels: bool,  # noqa: ARG002 - as all tasks
    ) -> Loss:
        """Return Huber's or the squared loss of the error in standard deviations."""
        from voxlift.models.losses import build_number_loss

        return build_number_loss(self.choose_loss(trainer.loss), scale=head.start[1])

    def fit_linear(
        self, features: NDArray[np.float64], labels: NDArray[Any], fit: LinearOptions
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return a ridge regression of the standardised number, in its unit."""
        from sklearn.linear_model import Ridge

        from voxlift.data_pipelines.pipeline import class_weights

        strata = self.strata(labels).tolist()
        weights = class_weights(strata)
        offset, scale = self.plan_head(("number",), labels).start
        regression = Ridge(alpha=1 / fit.strength)
        regression.fit(
            features,
            (labels[:, 0] - offset) / scale,
            sample_weight=[weights[one] for one in strata] if fit.balance else None,
        )
        return scale * regression.coef_[:, None], np.array([offset + scale * regression.intercept_])

    def linear_columns(self, weights: NDArray[Any], names: tuple[str, ...]) -> dict[str, NDArray[Any]]:  # noqa: ARG002 - as all
        """Return the weights of the number."""
        return {"": weights[..., 0]}

    def predict(self, outputs: NDArray[Any]) -> NDArray[np.float64]:
        """Return the outputs, which have the number's unit, [N, 1]."""
        return outputs.astype(np.float64)

    def build_scores(
        self,
        rows: ScoredRows,
        predictions: NDArray[np.float64],
        names: tuple[str, ...],
    ) -> Numbers:
        """Return predicted beside measured numbers, with mean and median of the training subjects."""
        from voxlift.app.evaluation.numbers import Numbers

        training = rows.training.astype(np.float64)
        return Numbers(
            rows.subjects,
            rows.labels[:, 0],
            predictions[:, 0],
            items=rows.items,
            name=names[0],
            unit=self.unit,
            training_mean=float(training.mean()) if training.size else float("nan"),
            training_median=float(np.median(training)) if training.size else float("nan"),
        )

    def validation_metrics(self, scores: Numbers, head: Head) -> dict[str, float]:
        """Return `loss`, Huber's of the error in standard deviations, and the other monitors."""
        from voxlift.app.evaluation.metrics import score_metrics

        size = np.abs(scores.errors) / head.start[1]
        near = np.minimum(size, 1.0)
        return self.list_monitors(float((near * (size - 0.5 * near)).mean()), score_metrics(scores))

    def evaluate(self, scores: Mapping[str, Numbers]) -> dict[str, Any]:
        """Return metrics, among them those of always predicting the mean or the median of training."""
        from voxlift.app.evaluation.evaluate import evaluate_blocks

        validation = scores["val"]
        training = {"mean": validation.training_mean, "median": validation.training_median}
        unit = {"unit": self.unit} if self.unit else {}
        return {"task": self.name, **unit, "training": training, **evaluate_blocks(scores)}

    def decide(self, scores: Numbers, metrics: Mapping[str, Any]) -> Numbers:
        """Return the scores with mean and median of the training subjects."""
        training = metrics["training"]
        return replace(scores, training_mean=training["mean"], training_median=training["median"])

    def carry_over(self, metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return mean and median of the training subjects, and the unit."""
        names = ("mean", "median")
        training = {name: float(np.mean([own["training"][name] for own in metrics])) for name in names}
        unit = {"unit": self.unit} if self.unit else {}
        return {**super().carry_over(metrics), **unit, "training": training}

    def decide_rows(self, predictions: NDArray[np.float64], thresholds: Sequence[float]) -> NDArray[np.int64]:  # noqa: ARG002 - as all tasks
        """Return zeros [N]: nothing is decided."""
        return np.zeros(len(predictions), np.int64)

    def describe_decision(self, names: tuple[str, ...], thresholds: Sequence[float]) -> str:  # noqa: ARG002 - as all tasks
        """Return that the number itself is the prediction."""
        return f"the number {names[0]}" + (f" in {self.unit}" if self.unit else "")

    def set_columns(self, names: tuple[str, ...]) -> list[str]:  # noqa: ARG002 - as all tasks
        """Return the ends of the prediction interval."""
        return ["low", "high"]

    def set_cells(
        self,
        prediction: NDArray[np.float64],
        limits: Mapping[str, float],
        names: tuple[str, ...],  # noqa: ARG002 - as all tasks
    ) -> dict[str, Any]:
        """Return both ends; infinite where there were too few subjects."""
        half = limits["half width"]
        return {"low": float(prediction[0] - half), "high": float(prediction[0] + half)}

    def map_title(
        self, output: int, prediction: NDArray[np.float64], names: tuple[str, ...]
    ) -> tuple[str, str]:
        """Return the name, and the predicted number with its unit."""
        return names[output], f"{names[output]} {prediction[output]:.4g} {self.unit}".rstrip()

    def scan_columns(self, names: tuple[str, ...]) -> list[str]:  # noqa: ARG002 - as all tasks
        """Return `prediction`."""
        return ["prediction"]

    def scan_cells(
        self,
        prediction: NDArray[np.float64],
        decision: NDArray[np.int64],  # noqa: ARG002 - as all tasks
        names: tuple[str, ...],  # noqa: ARG002 - as all tasks
    ) -> dict[str, Any]:
        """Return the number."""
        return {"prediction": float(prediction[0])}

    def prediction_cells(self, scores: Numbers) -> list[dict[str, Any]]:
        """Return `label` and `prediction`."""
        return [
            {"label": float(label), "prediction": float(value)}
            for label, value in zip(scores.labels, scores.values, strict=True)
        ]

    def read_predictions(
        self,
        rows: Sequence[Mapping[str, str]],
        names: tuple[str, ...],  # noqa: ARG002 - as all tasks
    ) -> NDArray[np.float64]:
        """Return the predicted numbers [N, 1]."""
        return np.array([[float(row["prediction"])] for row in rows], np.float64).reshape(-1, 1)

    def label_cells(self, label: int, targets: Sequence[float], names: tuple[str, ...]) -> dict[str, str]:  # noqa: ARG002 - as all
        """Return the number in `label`."""
        return {"label": repr(float(targets[0]))}

    def groups_of(self, row: Mapping[str, str], names: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG002 - as all
        """Return one group for all volumes."""
        return (f"with {names[0]}",)

    def read_label(self, row: Mapping[str, str], names: tuple[str, ...]) -> Label:  # noqa: ARG002 - as all tasks
        """Return 0 and the number."""
        return 0, (float(row["label"]),)


def _format_spread(values: NDArray[np.float64]) -> str:
    return f"{values.mean():.4g} \N{PLUS-MINUS SIGN} {values.std():.3g}"
