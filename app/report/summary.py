"""What a report is made of, as plain values: the commands fill these, the pages only lay them out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from voxlift.app.evaluation.calibration import Temperature
from voxlift.app.evaluation.paired import Comparison
from voxlift.app.evaluation.scores import Scores

Row = Mapping[str, object]
"""One table row: column heading to value. The first row's columns are the table's."""


@dataclass(frozen=True, eq=False)
class Case:
    """One volume to look at.

    Attributes:
        subject: Whose it is.
        truth: Name of its class.
        decided: Name of the class that the model took.
        probability: Probability given to the decided class.
        planes: Images [height, width] of any finite range, say axial, coronal and sagittal, the way they are
            to be seen (row 0 on top, pixels square).
        maps: One map [height, width] in 0..1 per plane, drawn over it (Grad-CAM); empty for none.
    """

    subject: str
    truth: str
    decided: str
    probability: float
    planes: Sequence[NDArray[np.floating]]
    maps: Sequence[NDArray[np.floating]] = ()


@dataclass(frozen=True, eq=False)
class RunSummary:
    """One finished run.

    Attributes:
        name: Heading of the page, such as `volume3d on nodule`.
        metrics: Split (`val`, `test`) to its block of metrics.json.
        scores: Split to its scores, which the curves are drawn from; empty leaves the figures out.
        split: The split that the verdict and the figures are about.
        history: One row per epoch, with `val_` before the validation columns; numbers or their text.
        splits: Rows of the table of splits (how many subjects of each class in each).
        config: The resolved configuration as YAML text.
        environment: Versions, device, precision; nested mappings are shown as `a.b`.
        cost: Any of `parameters`, `flops`, `seconds_per_epoch`, `seconds_per_volume`, `peak_memory_bytes`,
            or others.
        temperature: Fitted on validation; its effect on the split is shown.
        worst: Cases that the model was surest of and got wrong.
        surest: Cases that it was surest of and got right.
        audit: Findings of the data audit, one sentence each; None where no audit was made.
        notes: Sentences that a reader must know, such as how many rows were left out.
        created: When, as text.
    """

    name: str
    metrics: Mapping[str, Mapping[str, object]]
    scores: Mapping[str, Scores] = field(default_factory=dict)
    split: str = "test"
    history: Sequence[Row] = ()
    splits: Sequence[Row] = ()
    config: str = ""
    environment: Mapping[str, object] = field(default_factory=dict)
    cost: Mapping[str, object] = field(default_factory=dict)
    temperature: Temperature | None = None
    worst: Sequence[Case] = ()
    surest: Sequence[Case] = ()
    audit: Sequence[str] | None = None
    notes: Sequence[str] = ()
    created: str = ""


@dataclass(frozen=True, eq=False)
class ComparisonSummary:
    """Several models on the same subjects.

    Attributes:
        name: Heading of the page.
        comparisons: Pairs, from `compare_models`.
        models: Model name to its scores, one per fold and seed in the same order for all.
        metrics: Model name to its values and `intervals`; `summarise_models` makes it from `models`.
        costs: Model name to any of the cost keys of `RunSummary`.
        histories: Model name to its rows, one per epoch (of the first fold and seed).
        splits: Rows of the table of splits.
        configs: Model name to its resolved configuration as YAML text.
        environment: As in `RunSummary`.
        temperatures: Model name to the temperature of each of its cells, fitted on validation; empty for
            none.
        trainings: Rows of the table of trainings: what was trained, where it lies, how it went.
        cases: Volumes on which the models disagree most: per volume, model name to its case.
        split: The split that all were scored on.
        audit: As in `RunSummary`.
        notes: As in `RunSummary`.
        created: When, as text.
    """

    name: str
    comparisons: Sequence[Comparison]
    models: Mapping[str, Sequence[Scores]]
    metrics: Mapping[str, Mapping[str, object]]
    costs: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    histories: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    splits: Sequence[Row] = ()
    configs: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)
    temperatures: Mapping[str, Sequence[float]] = field(default_factory=dict)
    trainings: Sequence[Row] = ()
    cases: Sequence[Mapping[str, Case]] = ()
    split: str = "test"
    audit: Sequence[str] | None = None
    notes: Sequence[str] = ()
    created: str = ""
