"""The plan as rows and as a table."""

import io
import math
from typing import Any

from rich.console import Console
from rich.table import Table

from models.lifting.flow import Shape
from models.lifting.kinds import Value
from models.lifting.planner import Step
from models.lifting.rules.base import Lifted

WIDTH = 110


def plan_rows(plan: Value) -> list[dict[str, Any]]:
    """Return one dictionary per layer of a `LiftPlan`."""
    return [_row(step) for step in plan.graph.walk() if step.lifted is not None]


def plan_text(plan: Value) -> str:
    """Return a `LiftPlan` as a table about 110 columns wide, with totals and remarks."""
    rows = plan_rows(plan)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("layer", "2D", "3D", "window"):
        table.add_column(title, overflow="fold")
    for title in ("params 2D", "params 3D"):
        table.add_column(title, justify="right")
    table.add_column("weights", overflow="fold")
    for row in rows:
        table.add_row(
            row["layer"],
            f"{row['class_2d']} {_sizes(row['shape_2d'])}",
            f"{row['class_3d']} {_sizes(row['shape_3d'])}",
            row["window"],
            _number(row["params_2d"]),
            _number(row["params_3d"]),
            row["weights"],
        )
    page = io.StringIO()
    Console(file=page, width=WIDTH, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines())


def _row(step: Step) -> dict[str, Any]:
    lifted = step.lifted or Lifted(None, {}, step.outputs)
    operation = step.call.operation
    shapes_2d = [tuple(weight.shape) for weight in getattr(operation, "weights", ())]
    return {
        "layer": step.path,
        "class_2d": type(operation).__name__,
        "shape_2d": step.outputs[0].shape_2d,
        "class_3d": lifted.layer_class.__name__ if lifted.layer_class else "-",
        "shape_3d": step.outputs[0].shape,
        "window": lifted.window,
        "policy": step.policy,
        "params_2d": 0 if step.is_shared else _count(shapes_2d),
        "params_3d": 0 if step.is_shared else _count(lifted.weight_shapes),
        "weights": lifted.source,
        "inexact": lifted.inexact,
        "note": lifted.note,
        "is_shared": step.is_shared,
    }


def _count(shapes: Value) -> int:
    return sum(math.prod(size or 0 for size in shape) for shape in shapes)


def _sizes(shape: Shape) -> str:
    return "x".join("?" if size is None else str(size) for size in shape[1:])


def _number(value: int) -> str:
    return f"{value:,}" if value else ""
