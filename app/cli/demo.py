"""`make demo`: compare slice and volume model on both phantom tasks, with a table, a picture and two pages.

It takes no arguments and calls `voxlift-compare` twice, with `experiment=demo`; results go to runs/demo.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from voxlift.app.data.sources import build_preprocess, load_subjects
from voxlift.app.files import read_json, read_rows
from voxlift.app.progress import console, print_line
from voxlift.app.report.demo_figure import write_demo_figure
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runtime.child import python_module
from voxlift.app.tasks.base import task_of
from voxlift.data_pipelines.preprocess.prepare import prepare_tensor

FOLDER = Path("runs/demo")
TASKS = ("nodule", "chirality")


def main() -> int:
    """Run both comparisons, print the table and the paths of the results, and return the exit status."""
    if sys.argv[1:]:
        sys.stdout.write(__doc__ or "")
        return 0 if set(sys.argv[1:]) <= {"-h", "--help"} else 2
    for task in TASKS:
        console.rule(f"Phantom task {task}")
        status = subprocess.run(comparison_command(task), check=False).returncode  # noqa: S603 - our own module, no shell
        if status:
            return status
    console.rule("Demo")
    comparisons = {task: read_json(FOLDER / task / "comparison.json") for task in TASKS}
    console.print(demo_table(comparisons))
    for task, found in comparisons.items():
        print_line(f"{task}: {found['verdict']}")
    picture = write_demo_figure(
        FOLDER / "picture.png", volumes=example_volumes(FOLDER / TASKS[0]), comparisons=comparisons
    )
    print_line(f"Picture in {picture}")
    for task in TASKS:
        print_line(f"Report in {FOLDER / task / 'report.html'}")
    return 0


def comparison_command(task: str) -> list[str]:
    """Return the command of one task's comparison."""
    settings = ["experiment=demo", f"data.task={task}", f"run_dir={FOLDER / task}"]
    return python_module("voxlift.app.cli.compare", "models=[slice2d,volume3d]", *settings)


def example_volumes(comparison: Path) -> dict[str, NDArray[np.float32]]:
    """Return a volume [D, H, W] of each class, prepared as in the trainings of a comparison."""
    run = RunFolder(Path(read_rows(comparison / "trials.csv")[0]["run"]))
    settings = load_settings(run)
    manifest = load_subjects(settings.data, task_of(settings))
    preprocess = build_preprocess(settings.preprocess, settings.data)
    firsts = {record.label: record for record in reversed(manifest.records)}
    return {
        manifest.classes[label]: prepare_tensor(firsts[label].images, preprocess)[..., 0]
        for label in sorted(firsts)
    }


def demo_table(comparisons: dict[str, dict[str, Any]]) -> Table:
    """Return a table with a row per task and model: test metrics with 95 % intervals, and costs."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in ("task", "model"):
        table.add_column(heading)
    for heading in ("test AUC", "95 % interval", "balanced accuracy", "parameters", "s per epoch"):
        table.add_column(heading, justify="right", no_wrap=True)
    for task, found in comparisons.items():
        for name, model in found["models"].items():
            table.add_row(task, name, *_format_model(model))
    return table


def _format_model(model: dict[str, Any]) -> tuple[str, ...]:
    test, cost = model["test"], model["cost"]
    low, high = test["intervals"]["auc"]
    return (
        f"{test['auc']:.3f}",
        f"{low:.3f} to {high:.3f}",
        f"{test['balanced_accuracy']:.3f}",
        f"{cost['parameters']:,.0f}",
        f"{cost['seconds_per_epoch']:.2f}",
    )


if __name__ == "__main__":
    sys.exit(main())
