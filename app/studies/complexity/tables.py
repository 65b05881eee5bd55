"""The tables of the study of complexity: rows for files, texts for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from voxlift.app.report.quantities import format_quantity
from voxlift.app.report.study import TextTable
from voxlift.app.studies.complexity.costs import Cost
from voxlift.app.studies.complexity.laws import QUANTITIES, costs_by_model, fit_laws, ratio_to, say_exponent


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
