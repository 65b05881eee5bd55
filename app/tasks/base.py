"""`Task`: what a module may ask about what is predicted, and how the task of a name is found.

A module asks the object; it never asks for the task's name.

`names` are always the names of the outputs in order: of the classes, the grades, the findings, or the number.
`labels` are int64 [N] class indices, or float64 [N, T] targets in which nan is unknown. `outputs` are
what the network returns, [N, K]; `predictions` are probabilities or numbers, float64 [N, K].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from voxlift.app.config import DataSettings, TrainerSettings, TrainSettings
    from voxlift.app.evaluation.scores import Predictions
    from voxlift.data_pipelines.tables.manifest import Manifest, Record


Loss = Callable[[Any, Any], Any]
Label = tuple[int, tuple[float, ...]]  # class index, targets: as in a `Record`
TASK_NAMES = ("classes", "findings", "grades", "number")


@dataclass(frozen=True)
class Head:
    """The end of a network.

    Attributes:
        units: Outputs of its dense layer.
        start: What it starts from, known from the training subjects: biases of findings, cuts between grades,
            mean and standard deviation of a number; empty: nothing.
    """

    units: int
    start: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """Who was scored.

    Attributes:
        subjects: N names.
        items: N image cells.
        labels: [N] or [N, T].
        training: Labels of the training subjects, which a baseline of a number needs; may be empty.
    """

    subjects: tuple[str, ...]
    items: tuple[str, ...]
    labels: NDArray[Any]
    training: NDArray[Any]


@dataclass(frozen=True)
class LinearOptions:
    """How a linear model is fitted.

    Attributes:
        strength: C, the inverse strength of the L2 penalty.
        balance: Whether all groups of `Task.strata` have the same weight.
        max_iterations: Of the solver.
    """

    strength: float = 1.0
    balance: bool = False
    max_iterations: int = 1000


class Task(ABC):
    """What is predicted: labels, head, loss, predictions, metrics and columns of files.

    Attributes:
        name: Of the option of the group `task`.
        noun: What one of `names` is, for headings.
        target: How data_pipelines reads the cells of labels: `classes`, `findings` or `number`.
        losses: Allowed values of `trainer.loss`; `auto` is the first.
        monitors: Allowed values of `trainer.monitor`; `auto` is the first.
        lower_is_better: Those of the monitors.
        activation: What turns outputs into predictions: `softmax`, `sigmoid` or `linear`.
        output_layer: Class name of the layer that `finish` appends; empty: none.
        map_kind: What a map explains, see `models.explain.grad_cam`.
        has_pairs: Whether the scans of one subject can be compared with each other.
        is_nominal: Whether it predicts classes without an order: those are resampled within each class, and
            have a calibration and, if they are two, a threshold.
        has_probabilities: Whether predictions are probabilities, from which decisions follow; else numbers.
        outputs_meaning: What a network's outputs are, for other programs.
        decision_rule: How predictions become a decision, for other programs.
    """

    name: ClassVar[str]
    noun: ClassVar[str]
    target: ClassVar[str]
    losses: ClassVar[tuple[str, ...]]
    monitors: ClassVar[tuple[str, ...]]
    lower_is_better: ClassVar[frozenset[str]] = frozenset({"loss"})
    activation: ClassVar[str] = "softmax"
    map_kind: ClassVar[str] = "class"
    output_layer: ClassVar[str] = ""
    has_pairs: ClassVar[bool] = False
    is_nominal: ClassVar[bool] = False
    has_probabilities: ClassVar[bool] = True
    outputs_meaning: ClassVar[str]
    decision_rule: ClassVar[str]

    @property
    def primary(self) -> str:
        """Key of the metric that a verdict is about: the first of the monitors."""
        return self.monitors[0]

    def choose_loss(self, asked: str) -> str:
        """Return the name of the loss; of the task's own for `auto`."""
        return self.losses[0] if asked == "auto" else asked

    def choose_monitor(self, asked: str) -> str:
        """Return the metric that selects the best epoch; the task's own for `auto`."""
        return self.primary if asked == "auto" else asked

    def find_problems(self, settings: TrainSettings) -> list[str]:
        """Return one sentence for each setting that this task cannot use."""
        trainer, data = settings.trainer, settings.data
        problems = [
            f"{key}: expected one of auto, {', '.join(allowed)} for task={self.name}; received {value}."
            for key, value, allowed in (
                ("trainer.loss", trainer.loss, self.losses),
                ("trainer.monitor", trainer.monitor, self.monitors),
            )
            if value not in ("auto", *allowed)
        ]
        if settings.evaluation.paired_within is not None and not self.has_pairs:
            problems.append("evaluation.paired_within: expected task=classes, whose two classes form pairs.")
        return problems + self.find_data_problems(data)

    @abstractmethod
    def find_data_problems(self, data: DataSettings) -> list[str]:
        """Return one sentence for each key of `data` that this task cannot use."""

    @abstractmethod
    def names(self, data: DataSettings) -> tuple[str, ...]:
        """Return the names of the outputs, from the saved settings of a run."""

    @abstractmethod
    def labels(self, records: Sequence[Record]) -> NDArray[Any]:
        """Return the labels of records."""

    def label_columns(self, data: DataSettings) -> tuple[str, ...]:
        """Return the columns of the table that hold the label."""
        return (data.label_column,)

    @abstractmethod
    def with_names(self, data: DataSettings, names: tuple[str, ...]) -> DataSettings:
        """Return settings that name the outputs, so that later commands order them in the same way."""

    def check_names(self, names: tuple[str, ...], data: DataSettings) -> None:  # noqa: B027 - most take any
        """Pass when the names of the outputs, as they were found in the table, can be used.

        Args:
            names: In order.
            data: What the user has said about them.

        Raises:
            ManifestError: They cannot.
        """

    def check_records(self, manifest: Manifest) -> None:  # noqa: B027 - most take any
        """Pass when the records of a training have what the task needs beside their labels.

        Raises:
            ManifestError: They have not.
        """

    @abstractmethod
    def find_lost(self, names: tuple[str, ...], labels: NDArray[Any]) -> list[str]:
        """Return the outputs that nothing can be learnt about from these labels of the training subjects."""

    @abstractmethod
    def split_rows(self, manifest: Manifest, splits: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the rows of the table of splits: a heading with the splits, then what each one holds.

        Args:
            manifest: The records.
            splits: One per record.
        """

    @abstractmethod
    def fewest_subjects(self, manifest: Manifest, splits: Sequence[str]) -> tuple[int, str]:
        """Return the smallest number of subjects that any split has, and of what, such as ` of each class`.

        Args:
            manifest: The records.
            splits: One per record.
        """

    @abstractmethod
    def describe_visible_difference(
        self, records: Sequence[Record], names: tuple[str, ...], *, margin: float | None
    ) -> str:
        """Return what difference of two models these test subjects could show, without the full stop.

        Args:
            records: One of each test subject.
            names: Of the outputs.
            margin: Smallest difference that matters, in the unit of the metric; None: the task's own.

        Returns:
            The difference, the subjects that the margin needs, what is assumed; empty where that is unknown.
        """

    @abstractmethod
    def strata(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        """Return a group [N] of each volume, 0 ... G - 1, which `trainer.balance` gives the same weight."""

    @abstractmethod
    def plan_head(self, names: tuple[str, ...], labels: NDArray[Any]) -> Head:
        """Return the head for these outputs.

        Args:
            names: Of the outputs.
            labels: Of the training subjects.
        """

    def start_head(self, network: Any, head: Head) -> None:  # noqa: ANN401, B027 - untyped Keras; most start at 0
        """Let a new dense layer start from what is known of the training subjects."""

    def finish(self, network: Any, head: Head) -> Any:  # noqa: ANN401, ARG002 - untyped Keras
        """Return the network with what follows its dense layer; the network itself where that is nothing."""
        return network

    @abstractmethod
    def build_loss(
        self, trainer: TrainerSettings, names: tuple[str, ...], head: Head, *, soft_labels: bool
    ) -> Loss:
        """Return the loss per example: a function of labels and outputs of a batch.

        Args:
            trainer: Which loss, and its options.
            names: Of the outputs.
            head: Of the network.
            soft_labels: Whether labels are mixed, as mixup makes them.
        """

    @abstractmethod
    def fit_linear(
        self, features: NDArray[np.float64], labels: NDArray[Any], fit: LinearOptions
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return coefficients [F, K] and intercept [K] of a linear model with an L2 penalty.

        Its values `features @ coefficients + intercept` are those that `predict_linear` takes.

        Args:
            features: [N, F] of the training volumes.
            labels: Of them.
            fit: How it is fitted.
        """

    def predict_linear(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the predictions for values of a linear model, see `fit_linear`."""
        return self.predict(values)

    def linear_columns(self, weights: NDArray[Any], names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        """Return the weights [..., K] by what they raise; the name is empty where that is clear.

        Args:
            weights: Last axis: the outputs.
            names: Of them.
        """
        return {name: weights[..., index] for index, name in enumerate(names)}

    def linear_constants(self, intercept: NDArray[Any], names: tuple[str, ...]) -> dict[str, float]:
        """Return the constants by what they raise, as `linear_columns`."""
        return {name: float(value) for name, value in self.linear_columns(intercept, names).items()}

    @abstractmethod
    def predict(self, outputs: NDArray[Any]) -> NDArray[np.float64]:
        """Return the predictions for outputs of the network."""

    @abstractmethod
    def build_scores(
        self, rows: ScoredRows, predictions: NDArray[np.float64], names: tuple[str, ...]
    ) -> Predictions:
        """Return the predictions [N, K] beside their labels, as the value that app/evaluation takes."""

    @abstractmethod
    def validation_metrics(self, scores: Any, head: Head) -> dict[str, float]:  # noqa: ANN401 - this task's own class
        """Return `loss` and the other monitors of one epoch."""

    def list_monitors(self, loss: float, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return `loss`, and of the metrics those that are monitors, in their order."""
        return {"loss": loss} | {name: metrics[name] for name in self.monitors if name != "loss"}

    @abstractmethod
    def evaluate(self, scores: Mapping[str, Any]) -> dict[str, Any]:
        """Return the content of metrics.json: decisions chosen on validation, and a block for each split.

        Args:
            scores: By split; `val` is among them.
        """

    def decide(self, scores: Any, metrics: Mapping[str, Any]) -> Any:  # noqa: ANN401, ARG002 - this task's own class
        """Return scores with the thresholds of a metrics.json."""
        return scores

    def carry_over(self, metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:  # noqa: ARG002 - as all tasks
        """Return what the metrics.json of other data takes over from the runs that are averaged there.

        It is what `decide` reads, and the name of a task other than classes.

        Args:
            metrics: Of each run, its metrics.json.
        """
        return {"task": self.name}

    def thresholds(self, metrics: Mapping[str, Any]) -> tuple[float, ...]:  # noqa: ARG002 - as all tasks
        """Return the decision thresholds in a metrics.json; empty without any."""
        return ()

    @abstractmethod
    def decide_rows(self, predictions: NDArray[np.float64], thresholds: Sequence[float]) -> NDArray[np.int64]:
        """Return the decision on each row [N, K]: class indices [N], or findings [N, T], 1 or 0."""

    @abstractmethod
    def describe_decision(self, names: tuple[str, ...], thresholds: Sequence[float]) -> str:
        """Return how a scan is decided, as a sentence without its full stop."""

    @abstractmethod
    def scan_columns(self, names: tuple[str, ...]) -> list[str]:
        """Return the columns of a new scan's decision and predictions, in order."""

    @abstractmethod
    def scan_cells(
        self, prediction: NDArray[np.float64], decision: NDArray[np.int64], names: tuple[str, ...]
    ) -> dict[str, Any]:
        """Return the cells of `scan_columns` for one scan, from its predictions [K] and its decision."""

    def decided_names(self, row: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:  # noqa: ARG002 - as all tasks
        """Return the class, grade or findings that a scan was decided to have; none without a decision.

        Args:
            row: With the cells of `scan_columns`, as values or as text.
            names: Of the outputs.
        """
        return [str(row["decision"])] if row.get("decision") else []

    def set_columns(self, names: tuple[str, ...]) -> list[str]:  # noqa: ARG002 - as all tasks
        """Return the columns of a new scan's prediction set."""
        return ["set"]

    def set_cells(
        self, prediction: NDArray[np.float64], limits: Mapping[str, float], names: tuple[str, ...]
    ) -> dict[str, Any]:
        """Return the cells of `set_columns`: the labels in the set, with `|` between them.

        Args:
            prediction: [K] of the scan.
            limits: Largest nonconformity of each label in a set, as app/evaluation/conformal.py finds them.
            names: Of the outputs.
        """
        pairs = zip(names, prediction, strict=True)
        return {"set": "|".join(name for name, p in pairs if 1 - p <= limits[name])}

    def map_output(
        self,
        prediction: NDArray[np.float64],  # noqa: ARG002 - as all tasks
        decision: NDArray[np.int64],
        asked: int | None,
    ) -> int:
        """Return the index of the output that a scan's map explains, see `map_kind`.

        Args:
            prediction: [K] of the scan.
            decision: On the scan.
            asked: Index of the class, grade or finding that was asked for; None: the decision.
        """
        return int(decision) if asked is None else asked

    def map_title(
        self, output: int, prediction: NDArray[np.float64], names: tuple[str, ...]
    ) -> tuple[str, str]:
        """Return what a map explains, as part of a file's name, and with its value, for a heading."""
        return names[output], f"{names[output]} at {prediction[output]:.3f}"

    @abstractmethod
    def prediction_cells(self, scores: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - this task's own class
        """Return the columns of predictions.csv for labels and predictions, a row per volume."""

    def read_predictions(
        self, rows: Sequence[Mapping[str, str]], names: tuple[str, ...]
    ) -> NDArray[np.float64]:
        """Return the predictions [N, K] in rows of predictions.csv, the inverse of `prediction_cells`."""
        import numpy as np  # late, as in `find_task`

        values = np.array([[float(row[f"p_{name}"]) for name in names] for row in rows], np.float64)
        return values.reshape(-1, len(names))

    @abstractmethod
    def label_cells(self, label: int, targets: Sequence[float], names: tuple[str, ...]) -> dict[str, str]:
        """Return the columns of splits.csv and predictions.csv for the label of a record."""

    @abstractmethod
    def groups_of(self, row: Mapping[str, str], names: tuple[str, ...]) -> tuple[str, ...]:
        """Return what a row of splits.csv is counted as, in a table of volumes per split."""

    @abstractmethod
    def read_label(self, row: Mapping[str, str], names: tuple[str, ...]) -> Label:
        """Return the label of a row of splits.csv or predictions.csv, the inverse of `label_cells`.

        Raises:
            ValueError, KeyError: The row is damaged.
        """


def find_task(name: str, unit: str = "", *, is_paired: bool = False, top_k: int = 5) -> Task:
    """Return the task of a name of `TASK_NAMES`.

    Args:
        name: Of the task.
        unit: Of a number.
        is_paired: Of classes, as in `Scores`.
        top_k: Of classes, as in `Scores`.
    """
    # Late: `--help` and the schema answer without numpy.
    from voxlift.app.tasks.classes import Classes
    from voxlift.app.tasks.findings import FindingsTask
    from voxlift.app.tasks.grades import GradesTask
    from voxlift.app.tasks.number import NumberTask

    tasks: tuple[Task, ...] = (Classes(is_paired, top_k), FindingsTask(), GradesTask(), NumberTask(unit))
    return next(task for task in tasks if task.name == name)


def task_of(settings: Any) -> Task:  # noqa: ANN401 - any settings with the group `task`
    """Return the task that the settings of a command name."""
    task = settings.task
    if not hasattr(settings, "evaluation"):  # of a command that scores nothing
        return find_task(task.name, task.unit)
    evaluation = settings.evaluation
    is_paired = evaluation.paired_within is not None
    return find_task(task.name, task.unit, is_paired=is_paired, top_k=evaluation.top_k)
