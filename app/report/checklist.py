"""The reporting checklist of a run: items filled from its files, and those left for the authors.

The numbers and sections are those of CLAIM 2024; the texts are our own words.

Source:
    Tejani et al. 2024, doi:10.1148/ryai.240300; numbers, sections and titles of its 44 items as in the
    companion site of the RSNA (Akinci D'Antonoli et al. 2026, doi:10.1148/ryai.260835; rsna.github.io/claim).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxlift.app.config import TrainSettings
from voxlift.app.evaluation.metric_names import headline_metrics, metric_label
from voxlift.app.files import write_text
from voxlift.app.report import run_facts
from voxlift.app.report.pages import timestamp, write_page
from voxlift.app.report.run_facts import RunFacts
from voxlift.app.runs.folder import RunFolder
from voxlift.app.tasks.base import task_of

SOURCE = "CLAIM 2024 (Tejani et al., doi:10.1148/ryai.240300)"
NOTE = (
    f"Numbers and sections of {SOURCE}, items in the words of this program: fill in the published form "
    "before you submit."
)
AUTHORS = "for the authors"


@dataclass(frozen=True)
class Item:
    """One item of the checklist.

    Attributes:
        section: Of CLAIM 2024.
        number: In CLAIM 2024.
        text: What is to be reported, in our own words.
        describe: Returns the answer from the run's files, empty for none; None: the authors answer it.
    """

    section: str
    number: int
    text: str
    describe: Callable[[RunFacts], str] | None = None


@dataclass(frozen=True)
class Answer:
    """An item with its answer from the run's files; empty where the authors answer it."""

    item: Item
    text: str


@dataclass(frozen=True)
class Checklist:
    """What the page and the files show.

    Attributes:
        answers: One per item.
        methods: Paragraph with all figures.
        card: Sections of the model card: heading, text.
    """

    answers: tuple[Answer, ...]
    methods: str
    card: tuple[tuple[str, str], ...]
    note: str = NOTE

    @property
    def filled(self) -> int:
        """How many items the run's files answer."""
        return sum(bool(answer.text) for answer in self.answers)

    @property
    def summary(self) -> str:
        """How many items the run's files answer, and how many are left, as a sentence."""
        return (
            f"{self.filled} of {len(self.answers)} items are filled from the run's files; "
            f"{len(self.answers) - self.filled} are left for the authors."
        )


def build_checklist(
    run: RunFolder,
    settings: TrainSettings,
    metrics: Mapping[str, Any],
    *,
    external: Mapping[str, Any] | None = None,
    planned: Mapping[str, Any] | None = None,
) -> Checklist:
    """Return the checklist, the methods paragraph and the model card of a run that is scored.

    Args:
        run: Its folder, with all files but metrics.json.
        settings: Of the run.
        metrics: Content of metrics.json.
        external: As in `RunFacts`.
        planned: As in `RunFacts`.
    """
    facts = RunFacts(run, settings, metrics, external or {}, planned or {})
    answers = tuple(Answer(item, item.describe(facts) if item.describe else "") for item in ITEMS)
    return Checklist(answers, run_facts.write_methods(facts), tuple(_model_card(facts)))


def write_checklist(checklist: Checklist, name: str, folder: Path) -> list[Path]:
    """Write `checklist.html`, `checklist.md`, `methods.md` and `model-card.md`, and return their paths.

    Args:
        checklist: Of a run.
        name: Of the run, for headings.
        folder: Where the files go.
    """
    texts = {
        "checklist.md": format_checklist(checklist, name),
        "methods.md": f"# Methods: {name}\n\n{checklist.methods}\n",
        "model-card.md": format_card(checklist, name),
    }
    for file, text in texts.items():
        write_text(folder / file, text)
    values = {
        "title": f"Reporting checklist: {name}",
        "created": timestamp(),
        "verdict": checklist.summary,
        "notes": [NOTE],
        "checklist": checklist,
    }
    page = write_page("checklist.html.j2", folder / "checklist.html", values)
    return [page, *(folder / file for file in texts)]


def format_checklist(checklist: Checklist, name: str) -> str:
    """Return the table of items as Markdown."""
    lines = [f"# Reporting checklist: {name}", "", checklist.note, ""]
    lines += ["| Section | No. | Item | What the run's files say |", "|---|---|---|---|"]
    lines += [
        f"| {one.item.section} | {one.item.number} | {one.item.text} | {_cell(one.text) or f'*{AUTHORS}*'} |"
        for one in checklist.answers
    ]
    return "\n".join([*lines, ""])


def format_card(checklist: Checklist, name: str) -> str:
    """Return the model card as Markdown."""
    parts = [f"## {heading}\n\n{text}" for heading, text in checklist.card]
    return "\n\n".join([f"# Model card: {name}", *parts]) + "\n"


def _cell(text: str) -> str:
    """Return text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def _model_card(facts: RunFacts) -> list[tuple[str, str]]:
    """Return the sections of the model card.

    Source:
        Mitchell et al. 2019, doi:10.1145/3287560.3287596.
    """
    sections = {
        "Model": run_facts.describe_model(facts),
        "Input and output": f"{run_facts.describe_preprocess(facts)} {_describe_output(facts)}",
        "Intended use": f"Research. Not a medical device. Users and setting: *{AUTHORS}*.",
        "Training data": " ".join([run_facts.describe_flow(facts), run_facts.describe_splits(facts)]),
        "Training": " ".join([run_facts.describe_training(facts), run_facts.describe_selection(facts)]),
        "Results": " ".join([run_facts.describe_results(facts), run_facts.describe_uncertainty(facts)]),
        "External data": run_facts.describe_external(facts),
        "Calibration": run_facts.describe_calibration(facts),
        "Groups": run_facts.describe_subgroups(facts)
        or "No groups were scored apart; evaluation.by=[COLUMN] does so.",
        "Failures": run_facts.describe_failures(facts),
        "Limits": f"Scans unlike the training volumes (training_range.json) give a warning. *{AUTHORS}*.",
        "Software": run_facts.describe_software(facts),
    }
    return [(heading, text.strip()) for heading, text in sections.items() if text.strip()]


def _describe_output(facts: RunFacts) -> str:
    task = task_of(facts.settings)
    names = ", ".join(task.names(facts.settings.data))
    return f"Output: task {task.name}{f' ({names})' if names else ''}."


def _describe_technology(facts: RunFacts) -> str:
    model = facts.settings.model
    kind = "a convolutional or transformer network" if model.has_network else "a linear model"
    return f"Technology: {kind} ({model.name}) for task {facts.settings.task.name}."


def _describe_summary(facts: RunFacts) -> str:
    metrics = [key for key in ("auc", "kappa_quadratic", "mae") if key in facts.metrics[facts.split]]
    return run_facts.describe_results(facts, names=metrics)


def _describe_source(facts: RunFacts) -> str:
    data = facts.settings.data
    return f"Source in the settings: data={data.name}{f', table {data.table}' if data.table else ''}."


def _describe_subset(facts: RunFacts) -> str:
    data = facts.settings.data
    named = data.label_columns or [data.label_column]
    parts = [f"the labels in {'the columns' if len(named) > 1 else 'the column'} {', '.join(named)}"]
    parts += (
        ["masks or centres select a part of each image"] if data.mask_column or data.centre_columns else []
    )
    fraction = facts.settings.splits.train_fraction
    parts += [f"{fraction:g} of the training subjects were used"] if fraction < 1 else []
    return f"Used: {', '.join(parts)}."


def _describe_missing(facts: RunFacts) -> str:
    choice = facts.settings.data.on_bad_file
    return f"Rows without a usable label or image are counted in flow.csv; unusable files: {choice}."


def _describe_acquisition(facts: RunFacts) -> str:
    if not facts.run.subjects.exists():
        return ""
    return (
        "subjects.csv has spacing, shape, orientation and format of each file; scanner and protocol: authors."
    )


def _describe_internal(facts: RunFacts) -> str:
    block = facts.metrics[facts.split]
    if facts.split == "test":
        return f"{block['subjects']} test subjects of the same source, not used for any choice."
    return "There are no test subjects: the figures are those of validation, which selected the model."


def _describe_explanations(facts: RunFacts) -> str:
    if not facts.settings.model.has_network:
        return "Coefficients of the linear model are in its folder."
    return "report.html shows Grad-CAM maps of cases; occlusion maps: voxlift-predict explain=occlusion."


def _describe_demographics(facts: RunFacts) -> str:
    if not facts.run.table_one.exists():
        return ""
    return "table1.csv and report.html, by split, with standardised differences."


def _name_metrics(facts: RunFacts) -> str:
    return f"{', '.join(map(metric_label, headline_metrics(facts.metrics[facts.split])))}."


def _describe_precision(facts: RunFacts) -> str:
    describe = (
        _describe_summary,
        run_facts.describe_calibration,
        run_facts.describe_use,
        run_facts.describe_sets,
    )
    return " ".join(text for one in describe if (text := one(facts)))


ITEMS = (
    Item("Title and abstract", 1, "Name the study as one of AI, with the technology", _describe_technology),
    Item(
        "Title and abstract",
        2,
        "Structured summary of design, methods, results, conclusions",
        _describe_summary,
    ),
    Item("Introduction", 3, "Background; intended use and role of the model"),
    Item("Introduction", 4, "Aims and hypotheses"),
    Item("Study design", 5, "Prospective or retrospective"),
    Item("Study design", 6, "Goal of the study"),
    Item("Data", 7, "Sources of the data", _describe_source),
    Item("Data", 8, "Who was included and excluded, where and when"),
    Item("Data", 9, "Preprocessing", run_facts.describe_preprocess),
    Item("Data", 10, "Which parts of the data were used", _describe_subset),
    Item("Data", 11, "De-identification"),
    Item("Data", 12, "Missing data", _describe_missing),
    Item("Data", 13, "How images were acquired", _describe_acquisition),
    Item("Reference standard", 14, "How the labels were obtained"),
    Item("Reference standard", 15, "Why this reference standard"),
    Item("Reference standard", 16, "Who labelled, and their qualification"),
    Item("Reference standard", 17, "How the test subjects were labelled"),
    Item("Reference standard", 18, "Variability within and between raters"),
    Item("Data partitions", 19, "How subjects were assigned to splits", run_facts.describe_splits),
    Item("Data partitions", 20, "Level at which splits are disjoint", run_facts.describe_disjoint),
    Item("Testing data", 21, "Planned sample size, and why", run_facts.describe_planned_size),
    Item("Model", 22, "The model: input, layers, output", run_facts.describe_model),
    Item("Model", 23, "Software with versions", run_facts.describe_software),
    Item("Model", 24, "Initial weights", run_facts.describe_start),
    Item("Training", 25, "How it was trained", run_facts.describe_training),
    Item("Training", 26, "How the final model was selected", run_facts.describe_selection),
    Item("Training", 27, "Ensembles, if any", lambda _: "The figures are those of one model."),
    Item("Evaluation", 28, "Metrics", _name_metrics),
    Item("Evaluation", 29, "Uncertainty of the metrics", run_facts.describe_uncertainty),
    Item("Evaluation", 30, "Robustness: groups, other conditions", run_facts.describe_subgroups),
    Item("Evaluation", 31, "Explanations of predictions", _describe_explanations),
    Item("Evaluation", 32, "Test on internal data", _describe_internal),
    Item("Evaluation", 33, "Test on external data", run_facts.describe_external),
    Item("Evaluation", 34, "Registration of the trial"),
    Item("Results: data", 35, "Flow: numbers included and left out, with reasons", run_facts.describe_flow),
    Item("Results: data", 36, "Characteristics of the subjects in each split", _describe_demographics),
    Item("Results: performance", 37, "Metrics of the test", run_facts.describe_results),
    Item("Results: performance", 38, "Precision of the figures; calibration", _describe_precision),
    Item("Results: performance", 39, "Failures", run_facts.describe_failures),
    Item("Discussion", 40, "Limitations"),
    Item("Discussion", 41, "Implications for practice"),
    Item("Other information", 42, "Where protocol and details can be read"),
    Item("Other information", 43, "Availability of software, model and data"),
    Item("Other information", 44, "Funding, and the role of funders"),
)
