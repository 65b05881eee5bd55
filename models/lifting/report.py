"""The plan as rows and as a table."""

import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
from rich.console import Console
from rich.table import Table

from voxlift.models.flops import layer_flops
from voxlift.models.lifting.flow import Shape
from voxlift.models.lifting.kinds import LayerClass
from voxlift.models.lifting.rules.base import Lifted
from voxlift.models.lifting.steps import GraphPlan, Step

WIDTH = 110
SHOWN = 10
Row = dict[str, Any]


def plan_rows(graph: GraphPlan) -> list[Row]:
    """Return one dictionary per layer: names, shapes, window, parameters, FLOPs, weights, remarks."""
    return [_row(step) for step in graph.walk() if step.lifted is not None]


def plan_text(graph: GraphPlan, rows: list[Row], settings: Mapping[str, Any]) -> str:
    """Return a plan as plain text about 110 columns wide: head, table, totals, remarks.

    Args:
        graph: The plan of the network.
        rows: What `plan_rows` gave for it.
        settings: The arguments of `plan_lift`.
    """
    sizes = ", ".join(_sizes(flow.shape) for flow in graph.inputs)
    policy, init = settings["depth_policy"], settings["init"]
    title = f"{graph.model.name} in 3D: input {sizes}, depth_policy={policy}, init={init}"
    lines = [title, "", *_table(rows).splitlines(), "", *_totals(rows).splitlines(), *_remarks(rows)]
    return "\n".join(
        textwrap.fill(line, WIDTH, subsequent_indent="    ") if len(line) > WIDTH else line for line in lines
    )


def _row(step: Step) -> Row:
    lifted = step.lifted or Lifted(None, {}, step.outputs)
    operation = step.call.operation
    shapes_2d = [tuple(weight.shape) for weight in getattr(operation, "weights", ())]
    shape_2d, shape_3d = tuple(step.call.outputs[0].shape), step.outputs[0].shape
    read_2d = [tuple(tensor.shape) for tensor in step.call.inputs]
    read_3d = [flow.shape for flow in step.inputs]
    is_layer = isinstance(operation, keras.layers.Layer)
    config_2d, config_3d = (operation.get_config(), lifted.config) if is_layer else ({}, {})
    return {
        "layer": step.path,
        "class_2d": type(operation).__name__,
        "shape_2d": shape_2d,
        "class_3d": lifted.layer_class.__name__ if lifted.layer_class else "-",
        "shape_3d": shape_3d,
        "window": lifted.window,
        "policy": step.policy,
        "params_2d": 0 if step.is_shared else _count_values(shapes_2d),
        "params_3d": 0 if step.is_shared else _count_values(lifted.weight_shapes),
        "flops_2d": _flops(type(operation), config_2d, read_2d, shape_2d),
        "flops_3d": _flops(lifted.layer_class, config_3d, read_3d, shape_3d),
        "weights": "shared" if step.is_shared else lifted.source,
        "inexact": lifted.inexact,
        "note": lifted.note,
        "is_shared": step.is_shared,
        "downsamples": _downsamples(step),
    }


def _count_values(shapes: Sequence[Shape]) -> int:
    return sum(math.prod(size or 0 for size in shape) for shape in shapes)


def _flops(
    layer_class: LayerClass, config: Mapping[str, Any], reads: Sequence[Shape], gives: Shape
) -> int | None:
    """Return a layer's operations for one sample, None where a size is unknown."""
    if layer_class is None:
        return 0
    shapes = [tuple(size or 0 for size in (1, *shape[1:])) for shape in (*reads, gives)]
    if any(0 in shape for shape in shapes):
        return None
    return layer_flops(layer_class.__name__, config, shapes[:-1], shapes[-1])


def _downsamples(step: Step) -> bool:
    return step.outputs[0].reduction[1] > step.inputs[0].reduction[1]


def _table(rows: list[Row]) -> str:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("layer", "2D", "3D", "window"):
        table.add_column(title, overflow="fold")
    for title in ("params 2D > 3D", "MFLOPs 2D > 3D"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("weights", overflow="fold")
    for row in rows:
        same = row["class_2d"] == row["class_3d"]
        table.add_row(
            row["layer"],
            f"{row['class_2d']} {_sizes(row['shape_2d'])}",
            _sizes(row["shape_3d"]) if same else f"{row['class_3d']} {_sizes(row['shape_3d'])}",
            row["window"],
            _pair(row["params_2d"], row["params_3d"], _count),
            _pair(row["flops_2d"], row["flops_3d"], _mega),
            row["weights"],
        )
    page = io.StringIO()
    Console(
        file=page,
        width=WIDTH,
        color_system=None,
        force_jupyter=False,
        emoji=False,
        markup=False,
        highlight=False,
    ).print(table)
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines())


def _totals(rows: list[Row]) -> str:
    params = _count(_sum(row["params_2d"] for row in rows)), _count(_sum(row["params_3d"] for row in rows))
    flops = _sum(row["flops_2d"] for row in rows), _sum(row["flops_3d"] for row in rows)
    depths = [f"{row['shape_3d'][1]} behind {row['layer']}" for row in rows if row["downsamples"]]
    lines = [f"parameters: {params[0]} in 2D, {params[1]} in 3D"]
    if all(flops):
        lines.append(f"GFLOPs per sample: {flops[0] / 1e9:.3g} in 2D, {flops[1] / 1e9:.3g} in 3D")
    if depths:
        lines.append(f"slices: {', '.join(depths)}")
    return "\n".join(lines)


def _remarks(rows: list[Row]) -> list[str]:
    inexact = [f"  {row['layer']} ({row['policy']}): {row['inexact']}" for row in rows if row["inexact"]]
    notes = [f"  {row['layer']}: {row['note']}" for row in rows if row["note"]]
    if inexact:
        lines = [
            "",
            "not exact on a repeated slice (depth_policy='preserve' avoids most of this):",
            *_shown(inexact),
        ]
    else:
        lines = ["", "exact: with centre weights, a repeated slice gives what the 2D network gives."]
    return [*lines, *(["", "remarks:", *_shown(notes)] if notes else [])]


def _shown(lines: list[str]) -> list[str]:
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], *([f"  and {more} layers more"] if more > 0 else [])]


def _sum(values: Iterable[int | None]) -> int:
    return sum(value or 0 for value in values)


def _sizes(shape: Shape) -> str:
    return "x".join("?" if size is None else str(size) for size in shape[1:])


def _pair(one: int | None, other: int | None, show: Any) -> str:  # noqa: ANN401  # a function of a number
    return f"{show(one)} > {show(other)}" if one or other else ""


def _count(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _mega(value: int | None) -> str:
    return "?" if value is None else f"{value / 1e6:.3g}"
