"""Words and page of the study of complexity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from voxlift.app.config import TrainSettings
from voxlift.app.config.commands import StudySettings
from voxlift.app.report.formatting import format_quantity
from voxlift.app.report.run_page import spoken_task
from voxlift.app.report.study_page import Drawing, TextTable
from voxlift.app.studies.complexity.figures import draw_growth, draw_ratios
from voxlift.app.studies.complexity.laws import (
    QUANTITIES,
    Cost,
    costs_by_model,
    fit_laws,
    ratio_to,
    say_exponent,
)
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.outputs import Written, describe_fixed, say_load, write_study

VARIED = ("model", "preprocess.shape", "model.depth_policy", "model.init")
NOTICED = 1.1  # times the baseline's cost: less is nothing to plan for


def report_complexity(
    settings: StudySettings,
    folder: StudyFolder,
    costs: Sequence[Cost],
    refusals: Sequence[str],
    *,
    training: TrainSettings,
) -> None:
    """Write all that the study leaves, and print its recommendation."""
    study = settings.study
    baseline = costs[0].model if study.models[0] not in {cost.model for cost in costs} else study.models[0]
    rows = [cost_row(cost, costs, baseline) for cost in costs]
    laws = [
        law_row(quantity, name, law)
        for quantity in QUANTITIES
        for name, law in fit_laws(costs, quantity).items()
    ]
    written = Written(
        name=f"Complexity of {', '.join(study.models)} on {spoken_task(settings.data)}",
        recommendation=recommend(costs, baseline),
        findings=[
            *say_growth(costs),
            *say_memory(costs, baseline),
            *say_load([cost.load_per_core for cost in costs]),
            *refusals,
        ],
        varied=[
            ("model", ", ".join(study.models)),
            (
                "size of the volume",
                ", ".join(_sides(cost) for cost in next(iter(costs_by_model(costs).values()))),
            ),
        ],
        fixed=describe_fixed(training, varied=VARIED),
        rows=rows,
        more={"exponents": laws},
        values={"baseline": baseline},
        drawings=[
            Drawing(
                "growth",
                "Costs over the volume; lines: fitted power laws; brackets: 95 % intervals.",
                draw_growth(costs),
            ),
            Drawing(
                "ratios",
                f"The same costs divided by those of {baseline} on the same volume.",
                draw_ratios(costs, baseline),
            ),
        ],
        tables=[cost_table(rows, baseline), law_table(costs)],
        notes=_notes(settings),
    )
    write_study(written, folder, environment={})


def recommend(costs: Sequence[Cost], baseline: str) -> str:
    """What the other models cost in units of the baseline, and how that grows with the volume."""
    largest = max(cost.voxels for cost in costs if cost.model == baseline)
    size = next(_sides(cost) for cost in costs if cost.voxels == largest)
    laws = {name: law for name, law in fit_laws(costs, "train_seconds").items() if law is not None}
    growth = ", ".join(f"{name} {8**law.exponent:.2g}" for name, law in laws.items())
    grows = f" Doubling every side multiplies training time by: {growth}." if growth else ""
    ratios = ratio_to(costs, baseline, "train_seconds")
    times = {
        name: ratio for (name, voxels), ratio in ratios.items() if voxels == largest and name != baseline
    }
    if not times:
        return f"Only {baseline} was measured.{grows}"
    spoken = ", ".join(f"{name} {ratio:.2g} times" for name, ratio in times.items())
    cheap = [name for name, ratio in times.items() if ratio <= NOTICED]
    dear = [name for name, ratio in times.items() if ratio > NOTICED]
    advice = [f"cost is no reason against {', '.join(cheap)}"] if cheap else []
    advice += [f"choose {', '.join(dear)} only for a better score"] if dear else []
    what = f"training on a volume takes {spoken} as long as with {baseline}"
    return f"At {size} {', and '.join(advice)}: {what}.{grows}"


def say_growth(costs: Sequence[Cost]) -> list[str]:
    """A sentence for each cost: the exponents of all models, and what the intervals leave open."""
    sentences = []
    for quantity in ("flops", "activation_bytes", "train_seconds", "infer_seconds"):
        label = QUANTITIES[quantity][0].lower()
        laws = {name: law for name, law in fit_laws(costs, quantity).items() if law is not None}
        if not laws:
            continue
        spoken = ", ".join(f"{name} {say_exponent(law)}" for name, law in laws.items())
        linear = [name for name, law in laws.items() if law.low <= 1 <= law.high]
        verdict = (
            f" Growth in proportion to the voxels (exponent 1) is not excluded for {', '.join(linear)}."
            if linear
            else ""
        )
        sentences.append(f"Exponent of the voxels for {label}: {spoken}.{verdict}")
    return sentences


def say_memory(costs: Sequence[Cost], baseline: str) -> list[str]:
    """What the activations of a whole volume take, beside those of the baseline."""
    largest = max(cost.voxels for cost in costs)
    found = {cost.model: cost for cost in costs if cost.voxels == largest}
    spoken = ", ".join(
        f"{name} {format_quantity(float(cost.activation_bytes), 'B')}" for name, cost in found.items()
    )
    parameters = {cost.model: cost.parameters for cost in costs}
    counts = ", ".join(f"{name} {format_quantity(count)}" for name, count in parameters.items())
    return [
        (
            f"Activations of a forward pass at {_sides(next(iter(found.values())))}: {spoken}. Training "
            "keeps them all for each volume of a batch, a slice model only those of the slices in its batch."
        ),
        f"Parameters: {counts}."
        + (f" The baseline of the ratios is {baseline}." if len(parameters) > 1 else ""),
    ]


def _notes(settings: StudySettings) -> list[str]:
    return [
        (
            "Every model at every size is measured in a process of its own, on noise: nothing is trained to "
            "the end, and no score is involved."
        ),
        (
            f"Times are the median of {settings.study.timed_steps} calls after one that is not counted; "
            "reading and augmentation are not in them. A slice model is charged for all the slices of a "
            "volume."
        ),
        (
            "Operations, activations and parameters are counted from the layers (one multiply-add is two "
            "operations); activations are every layer's output once, in the precision of its layer."
        ),
        (
            "Exponents are least-squares slopes on logarithmic axes. Their intervals say how well one law "
            "describes these sizes: small volumes are ruled by fixed costs, so do not carry a law far beyond "
            "the sizes measured."
        ),
    ]


def _sides(cost: Cost) -> str:
    return " x ".join(map(str, cost.shape[:3]))


def cost_row(cost: Cost, costs: Sequence[Cost], baseline: str) -> dict[str, Any]:
    """A row of `table.csv`: one model at one size, beside the baseline's costs."""
    depth, height, width, channels = cost.shape
    row: dict[str, Any] = {"model": cost.model, "depth": depth, "height": height, "width": width}
    row |= {"channels": channels, "voxels": cost.voxels}
    for quantity in QUANTITIES:
        ratios = ratio_to(costs, baseline, quantity)
        row[quantity] = getattr(cost, quantity)
        row[f"{quantity}_ratio"] = ratios.get((cost.model, cost.voxels), float("nan"))
    return row | {"peak_memory_bytes": cost.peak_memory_bytes}


def law_row(quantity: str, name: str, law: Any) -> dict[str, Any]:  # noqa: ANN401 - a law or None
    """A row of `exponents.csv`: how a cost of a model grows with the voxels."""
    values = {"exponent": None, "low": None, "high": None, "factor": None} if law is None else vars(law)
    return {"quantity": quantity, "model": name, **values}


def cost_table(rows: Sequence[Mapping[str, Any]], baseline: str) -> TextTable:
    """Costs and their ratios to the baseline, for the page."""
    texts = [
        [
            str(row["model"]),
            f"{row['depth']} x {row['height']} x {row['width']}",
            *(
                text
                for key, (_, unit) in QUANTITIES.items()
                for text in (format_quantity(float(row[key]), unit), f"{row[f'{key}_ratio']:.2f}")
            ),
        ]
        for row in rows
    ]
    headings = [text for label, _ in QUANTITIES.values() for text in (label, "ratio")]
    return TextTable(
        f"Per volume; ratios to {baseline} at the same size.", ("Model", "volume", *headings), texts, 2
    )


def law_table(costs: Sequence[Cost]) -> TextTable:
    """The exponents of all costs and models, for the page."""
    names = list(costs_by_model(costs))
    rows = [
        [label, *(say_exponent(fit_laws(costs, quantity)[name]) for name in names)]
        for quantity, (label, _) in QUANTITIES.items()
    ]
    return TextTable("Fitted exponents of the voxels, with 95 % intervals (Student's t).", ("", *names), rows)
