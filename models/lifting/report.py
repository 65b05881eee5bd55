"""The plan of a lift as rows and as a printed table."""

import io
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
from rich.console import Console
from rich.table import Table

from voxlift.models.flops import layer_flops
from voxlift.models.lifting.planner import GraphPlan, Step, read_config
from voxlift.models.lifting.rules.base import Lifted
from voxlift.models.lifting.types import LayerClass, Shape

WIDTH = 110  # characters
SHOWN = 10  # lines of each list of remarks
Row: TypeAlias = dict[str, Any]


def plan_rows(graph: GraphPlan) -> list[Row]:
    """Return one dictionary per layer: names, shapes, window, parameters, FLOPs, weights, remarks."""
    return [_row(step, step.lifted) for step in graph.walk() if step.lifted is not None]


def format_plan(graph: GraphPlan, rows: list[Row], settings: Mapping[str, Any], width: int = WIDTH) -> str:
    """Return a plan as plain text: title, table, totals, remarks.

    Args:
        graph: The plan of the network.
        rows: The result of `plan_rows` for it.
        settings: The arguments of `plan_lift`.
        width: Characters of a line.
    """
    sizes = ", ".join(_format_shape(spec.shape) for spec in graph.inputs)
    policy, init = settings["depth_policy"], settings["init"]
    title = f"{graph.model.name} in 3D: input {sizes}, depth_policy={policy}, init={init}"
    lines = [title, "", *_table(rows, width).splitlines(), "", *_totals(rows), *_remarks(rows)]
    return "\n".join(
        textwrap.fill(line, width, subsequent_indent="    ") if len(line) > width else line for line in lines
    )


def _row(step: Step, lifted: Lifted) -> Row:
    operation = step.call.operation
    shapes_2d = [tuple(weight.shape) for weight in getattr(operation, "weights", ())]
    shape_2d, shape_3d = tuple(step.call.outputs[0].shape), step.outputs[0].shape
    read_2d = [tuple(tensor.shape) for tensor in step.call.inputs]
    read_3d = [spec.shape for spec in step.inputs]
    is_layer = isinstance(operation, keras.layers.Layer)
    config_2d, config_3d = (read_config(operation), lifted.config) if is_layer else ({}, {})
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
        "downsamples": step.outputs[0].downsampling[1] > step.inputs[0].downsampling[1],
    }


def _count_values(shapes: Sequence[Shape]) -> int:
    return sum(math.prod(size or 0 for size in shape) for shape in shapes)


def _flops(
    layer_class: LayerClass, config: Mapping[str, Any], reads: Sequence[Shape], returns: Shape
) -> int | None:
    """Return a layer's floating-point operations for one sample, None if a size is unknown."""
    if layer_class is None:
        return 0
    shapes = [tuple(size or 0 for size in (1, *shape[1:])) for shape in (*reads, returns)]
    if any(0 in shape for shape in shapes):
        return None
    return layer_flops(layer_class.__name__, config, shapes[:-1], shapes[-1])


def _table(rows: list[Row], width: int) -> str:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("layer", "2D", "3D", "window"):
        table.add_column(title, overflow="fold")
    for title in ("params 2D > 3D", "MFLOPs 2D > 3D"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("weights", overflow="fold")
    for row in rows:
        shape_3d = _format_shape(row["shape_3d"])
        table.add_row(
            row["layer"],
            f"{row['class_2d']} {_format_shape(row['shape_2d'])}",
            shape_3d if row["class_2d"] == row["class_3d"] else f"{row['class_3d']} {shape_3d}",
            row["window"],
            _format_pair(row["params_2d"], row["params_3d"], _format_count),
            _format_pair(row["flops_2d"], row["flops_3d"], _format_mega),
            row["weights"],
        )
    page = io.StringIO()
    console = Console(
        file=page,
        width=width,
        color_system=None,
        force_jupyter=False,
        emoji=False,
        markup=False,
        highlight=False,
    )
    console.print(table)
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines())


def _totals(rows: list[Row]) -> list[str]:
    params = [_format_count(_sum(row[key] for row in rows)) for key in ("params_2d", "params_3d")]
    flops = [_sum(row[key] for row in rows) for key in ("flops_2d", "flops_3d")]
    depths = [f"{row['shape_3d'][1]} after {row['layer']}" for row in rows if row["downsamples"]]
    lines = [f"parameters: {params[0]} in 2D, {params[1]} in 3D"]
    if all(flops):
        lines.append(f"GFLOPs per sample: {flops[0] / 1e9:.3g} in 2D, {flops[1] / 1e9:.3g} in 3D")
    if depths:
        lines.append(f"slices: {', '.join(depths)}")
    return lines


def _remarks(rows: list[Row]) -> list[str]:
    inexact = [f"  {row['layer']} ({row['policy']}): {row['inexact']}" for row in rows if row["inexact"]]
    notes = [f"  {row['layer']}: {row['note']}" for row in rows if row["note"]]
    if inexact:
        title = "not exact on a slice repeated along depth (depth_policy='preserve' avoids most of this):"
        lines = ["", title, *_first_lines(inexact)]
    else:
        text = "exact: with init='centre', a slice repeated along depth gives the output of the 2D network."
        lines = ["", text]
    return [*lines, *(["", "notes:", *_first_lines(notes)] if notes else [])]


def _first_lines(lines: list[str]) -> list[str]:
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], *([f"  and {more} more layers"] if more > 0 else [])]


def _sum(values: Iterable[int | None]) -> int:
    return sum(value or 0 for value in values)


def _format_shape(shape: Shape) -> str:
    return "x".join("?" if size is None else str(size) for size in shape[1:])


def _format_pair(one: int | None, other: int | None, to_text: Callable[[int | None], str]) -> str:
    return f"{to_text(one)} > {to_text(other)}" if one or other else ""


def _format_count(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _format_mega(value: int | None) -> str:
    return "?" if value is None else f"{value / 1e6:.3g}"
