"""Report the study of complexity: its recommendation, findings, tables and page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from voxlift.app.config import TrainSettings
from voxlift.app.config.commands import StudySettings
from voxlift.app.report.run_page import describe_task
from voxlift.app.report.study_page import StudyFigure, TextTable
from voxlift.app.report.tables import format_quantity
from voxlift.app.studies.complexity.figures import draw_costs, draw_ratios
from voxlift.app.studies.complexity.laws import (
    QUANTITIES,
    ModelCost,
    PowerLaw,
    compute_ratios,
    fit_laws,
    format_exponent,
    group_costs,
)
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.outputs import StudyResults, describe_fixed, describe_load, write_study_results

VARIED = ("model", "preprocess.shape", "model.depth_policy", "model.init")
NOTICEABLE = 1.1  # times the baseline's cost: less makes no difference to a plan


def report_complexity(
    settings: StudySettings,
    folder: StudyFolder,
    costs: Sequence[ModelCost],
    failures: Sequence[str],
    *,
    training: TrainSettings,
) -> None:
    """Write all files of the study and print its recommendation.

    Args:
        settings: Settings of the study.
        folder: Folder of the study.
        costs: Measured costs.
        failures: A sentence for each measurement that failed.
        training: Settings of the first model's training.
    """
    models = settings.study.models
    baseline = models[0] if models[0] in {cost.model for cost in costs} else costs[0].model
    rows = [build_cost_row(cost, costs, baseline) for cost in costs]
    laws = [
        build_law_row(quantity, name, law)
        for quantity in QUANTITIES
        for name, law in fit_laws(costs, quantity).items()
    ]
    sizes = [_format_sides(cost) for cost in next(iter(group_costs(costs).values()))]
    results = StudyResults(
        name=f"Complexity of {', '.join(models)} on {describe_task(settings.data)}",
        recommendation=recommend(costs, baseline),
        findings=[
            *describe_growth(costs),
            *describe_memory(costs, baseline),
            *describe_load([cost.load_per_core for cost in costs]),
            *failures,
        ],
        varied=[("model", ", ".join(models)), ("size of the volume", ", ".join(sizes))],
        fixed=describe_fixed(training, varied=VARIED),
        rows=rows,
        more={"exponents": laws},
        values={"baseline": baseline},
        drawings=[
            StudyFigure(
                "growth",
                "Costs over the volume; lines: fitted power laws; brackets: 95 % intervals.",
                draw_costs(costs),
            ),
            StudyFigure(
                "ratios",
                f"The same costs divided by those of {baseline} on the same volume.",
                draw_ratios(costs, baseline),
            ),
        ],
        tables=[_build_cost_table(rows, baseline), _build_law_table(costs)],
        notes=_build_notes(settings),
    )
    write_study_results(results, folder)


def recommend(costs: Sequence[ModelCost], baseline: str) -> str:
    """Return the recommendation: costs of the other models relative to the baseline, and their growth."""
    largest = max(cost.voxels for cost in costs if cost.model == baseline)
    size = next(_format_sides(cost) for cost in costs if cost.voxels == largest)
    laws = {name: law for name, law in fit_laws(costs, "train_seconds").items() if law is not None}
    factors = ", ".join(f"{name} {8**law.exponent:.2g}" for name, law in laws.items())
    growth = f" Doubling every side multiplies the training time by: {factors}." if factors else ""
    ratios = compute_ratios(costs, baseline, "train_seconds")
    times = {
        name: ratio for (name, voxels), ratio in ratios.items() if voxels == largest and name != baseline
    }
    if not times:
        return f"Only {baseline} was measured.{growth}"
    cheap = [name for name, ratio in times.items() if ratio <= NOTICEABLE]
    expensive = [name for name, ratio in times.items() if ratio > NOTICEABLE]
    advice = [f"cost is no argument against {', '.join(cheap)}"] if cheap else []
    advice += [f"choose {', '.join(expensive)} only for a better score"] if expensive else []
    compared = ", ".join(f"{name} {ratio:.2g} times" for name, ratio in times.items())
    return (
        f"At {size} {', and '.join(advice)}: training on a volume takes {compared} as long as with "
        f"{baseline}.{growth}"
    )


def describe_growth(costs: Sequence[ModelCost]) -> list[str]:
    """Return a sentence per cost: the exponents of all models, and whether linear growth is possible."""
    sentences = []
    for quantity in ("flops", "activation_bytes", "train_seconds", "infer_seconds"):
        laws = {name: law for name, law in fit_laws(costs, quantity).items() if law is not None}
        if not laws:
            continue
        exponents = ", ".join(f"{name} {format_exponent(law)}" for name, law in laws.items())
        linear = [name for name, law in laws.items() if law.low <= 1 <= law.high]
        remark = (
            f" Growth in proportion to the voxels (exponent 1) is not excluded for {', '.join(linear)}."
            if linear
            else ""
        )
        sentences.append(
            f"Exponent of the voxels for {QUANTITIES[quantity][0].lower()}: {exponents}.{remark}"
        )
    return sentences


def describe_memory(costs: Sequence[ModelCost], baseline: str) -> list[str]:
    """Return sentences about the activations at the largest size, and about the parameters."""
    largest = max(cost.voxels for cost in costs)
    found = {cost.model: cost for cost in costs if cost.voxels == largest}
    activations = ", ".join(
        f"{name} {format_quantity(float(cost.activation_bytes), 'B')}" for name, cost in found.items()
    )
    parameters = {cost.model: cost.parameters for cost in costs}
    counts = ", ".join(f"{name} {format_quantity(count)}" for name, count in parameters.items())
    return [
        (
            f"Activations of a forward pass at {_format_sides(next(iter(found.values())))}: {activations}. "
            "Training keeps all of them for each volume of a batch; a slice model keeps only those of the "
            "slices in its batch."
        ),
        f"Parameters: {counts}."
        + (f" The baseline of the ratios is {baseline}." if len(parameters) > 1 else ""),
    ]


def build_cost_row(cost: ModelCost, costs: Sequence[ModelCost], baseline: str) -> dict[str, Any]:
    """Return a row of `table.csv`: one model at one size, with ratios to the baseline."""
    depth, height, width, channels = cost.shape
    row: dict[str, Any] = {"model": cost.model, "depth": depth, "height": height, "width": width}
    row |= {"channels": channels, "voxels": cost.voxels}
    for quantity in QUANTITIES:
        ratios = compute_ratios(costs, baseline, quantity)
        row[quantity] = getattr(cost, quantity)
        row[f"{quantity}_ratio"] = ratios.get((cost.model, cost.voxels), float("nan"))
    return row | {"peak_memory_bytes": cost.peak_memory_bytes}


def build_law_row(quantity: str, name: str, law: PowerLaw | None) -> dict[str, Any]:
    """Return a row of `exponents.csv`: how a cost of a model grows with the voxels."""
    empty = {"exponent": None, "low": None, "high": None, "factor": None}
    return {"quantity": quantity, "model": name, **(vars(law) if law else empty)}


def _build_cost_table(rows: Sequence[Mapping[str, Any]], baseline: str) -> TextTable:
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


def _build_law_table(costs: Sequence[ModelCost]) -> TextTable:
    names = list(group_costs(costs))
    rows = [
        [label, *(format_exponent(fit_laws(costs, quantity)[name]) for name in names)]
        for quantity, (label, _) in QUANTITIES.items()
    ]
    return TextTable("Fitted exponents of the voxels, with 95 % intervals (Student's t).", ("", *names), rows)


def _build_notes(settings: StudySettings) -> list[str]:
    return [
        (
            "Every model at every size is measured in a process of its own, on random voxels: nothing is "
            "trained to the end, and no score is involved."
        ),
        (
            f"Times are the median of {settings.study.timed_steps} calls after one that is not counted; they "
            "exclude reading and augmentation. The time of a slice model is that of all slices of a volume."
        ),
        (
            "Operations, activations and parameters are counted from the layers (one multiply-add is two "
            "operations); activations are the outputs of all layers, in the precision of each layer."
        ),
        (
            "Exponents are least-squares slopes on logarithmic axes. Their intervals show how well one law "
            "describes these sizes: fixed costs dominate small volumes, so do not extrapolate a law far "
            "beyond the sizes measured."
        ),
    ]


def _format_sides(cost: ModelCost) -> str:
    return " x ".join(map(str, cost.shape[:3]))
