"""`task=grades`: one of several ordered classes, the lowest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.tasks.base import Head, LinearOptions, Loss, ScoredRows
from voxlift.app.tasks.classes import Classes, count_classes
from voxlift.data_pipelines.errors import ManifestError, list_some
from voxlift.data_pipelines.tables.reader import is_number

if TYPE_CHECKING:
    from voxlift.app.config import DataSettings, TrainerSettings
    from voxlift.app.evaluation.scores import Scores
    from voxlift.data_pipelines.tables.manifest import Record


class GradesTask(Classes):
    """Ordered classes: one value and the cuts between grades give the probability of each grade."""

    name = "grades"
    noun = "grade"
    losses = ("cumulative", "cross_entropy")
    monitors = ("kappa_quadratic", "loss", "mae_grades", "auc", "accuracy", "balanced_accuracy")
    lower_is_better = frozenset({"loss", "mae_grades"})
    map_kind = "cut"
    output_layer = "CumulativeLogits"
    has_pairs = False
    is_nominal = False
    outputs_meaning = "log-probabilities of the grades, whose softmax is the probability of each grade"
    decision_rule = (
        "the median grade: the lowest one above which all grades together have a probability below 0.5"
    )

    def find_data_problems(self, data: DataSettings) -> list[str]:
        """Return sentences where the order of the grades is not known, or findings are named."""
        problems = super().find_data_problems(data)
        if data.name == "medmnist3d":
            problems.append("task=grades: the classes of data=medmnist3d have no order; use task=classes.")
        if data.classes and len(data.classes) < 3:
            problems.append(
                "data.classes: expected three grades or more, the lowest first; received "
                f"{len(data.classes)}. Two are task=classes."
            )
        return problems

    def check_names(self, names: tuple[str, ...], data: DataSettings) -> None:
        """Pass when the order of the grades is known, and there are three or more.

        Raises:
            ManifestError: They are words whose order the user has not given, or too few.
        """
        if not data.classes and not all(map(is_number, names)):
            raise ManifestError(
                "task=grades: expected data.classes with the grades in order, the lowest first; the table "
                f"has {list_some(names)}, whose order is not known."
            )
        if len(names) < 3:
            raise ManifestError(
                f"task=grades: expected three grades or more; received {list_some(names)}. Two are "
                "task=classes."
            )

    def describe_visible_difference(
        self, records: Sequence[Record], names: tuple[str, ...], *, margin: float | None
    ) -> str:
        """Return the difference of the quadratic kappa; empty with fewer than two grades."""
        from voxlift.app.evaluation.paired import MARGIN
        from voxlift.app.evaluation.sample_size import DifferenceVariance, planned_kappa, required_subjects

        counts, aim = count_classes(records, names), margin or MARGIN
        if sum(count > 0 for count in counts) < 2:
            return ""
        (kappa, error), subjects = planned_kappa(counts), sum(counts)
        variance = DifferenceVariance(error**2 * subjects)
        return (
            f"With {subjects} test subjects, differences of the quadratic kappa below "
            f"{variance.width(subjects) / 2:.2f} cannot be told; one of {aim:g} needs about "
            f"{required_subjects(variance, aim, power=0.8)} for 80 % power. Assumed: kappa {kappa:.2f}"
        )

    def plan_head(self, names: tuple[str, ...], labels: NDArray[Any]) -> Head:
        """Return one value, and cuts that give each grade its frequency in training where the value is 0."""
        counts = np.bincount(labels.astype(np.int64), minlength=len(names)) + 0.5
        above = 1 - np.cumsum(counts)[:-1] / counts.sum()  # [K - 1]
        return Head(1, tuple(float(cut) for cut in -np.log(above / (1 - above))))

    def finish(self, network: Any, head: Head) -> Any:  # noqa: ANN401 - untyped Keras
        """Return the network with the cuts: log-probabilities [N, K]."""
        from voxlift.models.heads import append_cuts

        return append_cuts(network, head.start)

    def build_loss(
        self,
        trainer: TrainerSettings,
        names: tuple[str, ...],
        head: Head,  # noqa: ARG002 - as all tasks
        *,
        soft_labels: bool,
    ) -> Loss:
        """Return the cross-entropy of the cuts, or of the grades."""
        from voxlift.models.losses import build_grades_loss

        return build_grades_loss(
            self.choose_loss(trainer.loss),
            classes=len(names),
            label_smoothing=trainer.label_smoothing,
            soft_labels=soft_labels,
        )

    def fit_linear(
        self, features: NDArray[np.float64], labels: NDArray[Any], fit: LinearOptions
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return a proportional odds model: coefficients [F, 1] and an intercept [K - 1] for each cut."""
        from voxlift.app.tasks.proportional_odds import fit_proportional_odds

        return fit_proportional_odds(features, labels, fit, grades=int(labels.max()) + 1)

    def predict_linear(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probability of each grade, from the log odds of one above each cut."""
        from voxlift.app.tasks.proportional_odds import grade_probabilities

        return grade_probabilities(values)

    def linear_columns(self, weights: NDArray[Any], names: tuple[str, ...]) -> dict[str, NDArray[Any]]:  # noqa: ARG002 - as all tasks
        """Return the weights of the log odds of a higher grade, which are the same for every cut."""
        return {"higher grade": weights[..., 0]}

    def linear_constants(self, intercept: NDArray[Any], names: tuple[str, ...]) -> dict[str, float]:
        """Return the log odds of a grade above each cut, `>GRADE`, where all features are 0."""
        return {f">{name}": float(value) for name, value in zip(names[:-1], intercept, strict=True)}

    def build_scores(
        self, rows: ScoredRows, predictions: NDArray[np.float64], names: tuple[str, ...]
    ) -> Scores:
        """Return probabilities of the grades beside their indices."""
        from voxlift.app.evaluation.grades import Grades

        return Grades(rows.subjects, rows.labels, predictions, names, rows.items)

    def validation_metrics(self, scores: Scores, head: Head) -> dict[str, float]:  # noqa: ARG002 - as all tasks
        """Return `loss`, the cross-entropy of being above each cut (summed), and the other monitors."""
        from voxlift.app.evaluation.grades import above_cuts
        from voxlift.app.evaluation.metrics import score_metrics

        smallest = np.finfo(np.float64).eps
        above = np.clip(above_cuts(scores.probabilities), smallest, 1 - smallest)
        is_above = scores.labels[:, None] > np.arange(above.shape[1])
        terms = -np.where(is_above, np.log(above), np.log1p(-above))
        return self.list_monitors(float(terms.sum(axis=1).mean()), score_metrics(scores))

    def evaluate(self, scores: Mapping[str, Any]) -> dict[str, Any]:
        """Return metrics; there is no threshold and no temperature."""
        from voxlift.app.evaluation.evaluate import evaluate_blocks

        return {"task": self.name, **evaluate_blocks(scores)}

    def decide(self, scores: Scores, metrics: Mapping[str, Any]) -> Scores:  # noqa: ARG002 - as all tasks
        """Return the scores: the median grade is decided."""
        return scores

    def carry_over(self, metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:  # noqa: ARG002 - as all tasks
        """Return the name of the task: nothing was chosen."""
        return {"task": self.name}

    def decide_rows(self, predictions: NDArray[np.float64], thresholds: Sequence[float]) -> NDArray[np.int64]:  # noqa: ARG002 - as all tasks
        """Return the median grade of each row, [N]."""
        from voxlift.app.evaluation.grades import median_grades

        return median_grades(predictions)

    def describe_decision(self, names: tuple[str, ...], thresholds: Sequence[float]) -> str:  # noqa: ARG002 - as all tasks
        """Return the rule."""
        return "the median grade of the probabilities"

    def map_output(
        self, prediction: NDArray[np.float64], decision: NDArray[np.int64], asked: int | None
    ) -> int:
        """Return the cut below a grade; for the lowest grade the cut above it."""
        return max(0, super().map_output(prediction, decision, asked) - 1)

    def map_title(
        self, output: int, prediction: NDArray[np.float64], names: tuple[str, ...]
    ) -> tuple[str, str]:
        """Return the cut, and the probability of a grade above it."""
        return f"above {names[output]}", f"above {names[output]} at {prediction[output + 1 :].sum():.3f}"
