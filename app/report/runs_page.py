"""One page over all finished runs in a folder: data, model, score, time, and the settings that differ."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.config.overrides import NEUTRAL_KEYS, flatten
from voxlift.app.evaluation.metric_names import interval_of, is_lower_better, metric_label
from voxlift.app.files import read_json, refuse_unwritable, write_rows
from voxlift.app.report.pages import read_script, timestamp, write_page
from voxlift.app.report.run_page import describe_task
from voxlift.app.report.tables import format_interval, format_quantity, format_value
from voxlift.app.runs.configuration import load_settings, mark_extension
from voxlift.app.runs.folder import RunFolder
from voxlift.app.tasks.base import task_of

COLUMNS = ("data", "model", "seconds")  # that are sorted by besides metrics
SHOWN_APART = ("data.name", "model.name", "task.name")
MOST_SETTINGS = 40  # characters of a value


@dataclass(frozen=True)
class ListedRun:
    """A finished run.

    Attributes:
        run: Its folder.
        settings: Of the run.
        split: Of the score.
        block: Metrics of that split.
        seconds: Of its training; None where unknown.
    """

    run: RunFolder
    settings: TrainSettings
    split: str
    block: Mapping[str, Any]
    seconds: float | None

    @property
    def data(self) -> str:
        """What is predicted."""
        return describe_task(self.settings.data)

    def metric(self, wanted: str) -> str:
        """Return the key of the metric that is shown: the wanted one, or that of the task without it."""
        if isinstance(self.block.get(wanted), float):
            return wanted
        return task_of(self.settings).primary


def find_runs(folder: Path) -> list[ListedRun]:
    """Return the finished runs in a folder at any depth, by path."""
    found = []
    for file in sorted(folder.rglob("metrics.json")):
        run = RunFolder(file.parent)
        if run.config.exists() and run.splits.exists():
            metrics = read_json(file)
            split = next((name for name in ("test", "val") if name in metrics), None)
            if split is not None:
                cost = metrics.get("cost", {})
                seconds = cost.get("train_seconds")
                found.append(ListedRun(run, load_settings(run), split, metrics[split], seconds))
    return found


def sort_runs(runs: Sequence[ListedRun], sort: str) -> list[ListedRun]:
    """Return the runs by a column, or by a metric with the best first; runs without it come last.

    Raises:
        SettingsError: No run has the metric.
    """
    if sort == "seconds":
        return sorted(runs, key=lambda one: math.inf if one.seconds is None else one.seconds)
    if sort in COLUMNS:
        return sorted(runs, key=lambda one: (one.data, one.settings.model.name, str(one.run.path)))
    if not any(isinstance(one.block.get(sort), float) for one in runs):
        known = sorted(
            {name for one in runs for name, value in one.block.items() if isinstance(value, float)}
        )
        raise SettingsError(
            f"sort={sort}: expected {', '.join(COLUMNS)} or a metric of these runs: {', '.join(known)}."
        )
    sign = 1 if is_lower_better(sort) else -1

    def key(one: ListedRun) -> float:
        value = one.block.get(sort)
        return sign * value if isinstance(value, float) and math.isfinite(value) else math.inf

    return sorted(runs, key=key)


def list_differences(runs: Sequence[ListedRun]) -> list[dict[str, str]]:
    """Return for each run its settings that are not the same in all runs: key to text."""
    settings = [{key: str(value) for key, value in flatten(asdict(one.settings)).items()} for one in runs]
    keys = [
        key
        for key in dict.fromkeys(key for own in settings for key in own)
        if key.partition(".")[0] not in NEUTRAL_KEYS
        and key not in SHOWN_APART
        and len({own.get(key) for own in settings}) > 1
    ]
    return [{key: own.get(key, "")[:MOST_SETTINGS] for key in keys} for own in settings]


def write_runs_page(folder: Path, *, sort: str = "data", output: str | None = None) -> Path:
    """Write `runs.html` and `runs.csv` and return the page's path.

    Args:
        folder: With runs at any depth.
        sort: See `sort_runs`; `model` sorts like `data`.
        output: Folder of the files; None: `folder`.

    Raises:
        SettingsError: There is no finished run, or no such column.
    """
    found = find_runs(folder) if folder.is_dir() else []
    if not found:
        raise SettingsError(f"runs={folder}: expected a folder with finished runs at any depth; it has none.")
    runs = sort_runs(found, sort)
    target = folder if output is None else Path(output).expanduser()
    refuse_unwritable(target / "runs.html", setting=f"output={target}")
    target.mkdir(parents=True, exist_ok=True)
    differences = list_differences(runs)
    write_rows(
        target / "runs.csv", [_row(one, own, sort) for one, own in zip(runs, differences, strict=True)]
    )
    script, policy = read_script("sort.js")
    values = {
        "title": f"Runs in {folder.name or folder}",
        "created": timestamp(),
        "verdict": f"{len(runs)} finished runs, sorted by {sort}.",
        "notes": ["Scores of different data or subjects are not comparable; voxlift-compare pairs models."],
        "runs": [
            _cells(one, own, sort, folder=folder, target=target)
            for one, own in zip(runs, differences, strict=True)
        ],
        "script": script,
        "policy": policy,
    }
    return write_page("runs.html.j2", target / "runs.html", values)


def _row(one: ListedRun, differences: Mapping[str, str], sort: str) -> dict[str, Any]:
    metric = one.metric(sort)
    low, high = interval_of(one.block, metric) or ("", "")
    return {
        "run": str(one.run.path),
        "data": one.data,
        "model": one.settings.model.name,
        "split": one.split,
        "subjects": one.block.get("subjects", ""),
        "metric": metric,
        "value": one.block.get(metric),
        "low": low,
        "high": high,
        "train_seconds": one.seconds,
        "resumed": mark_extension(one.run),
        **differences,
    }


def _cells(
    one: ListedRun, differences: Mapping[str, str], sort: str, *, folder: Path, target: Path
) -> dict[str, Any]:
    page, metric = one.run.report, one.metric(sort)
    pair = interval_of(one.block, metric)
    return {
        "name": one.run.path.relative_to(folder).as_posix(),
        "value": one.block.get(metric) if isinstance(one.block.get(metric), float) else "",
        "seconds": "" if one.seconds is None else one.seconds,
        "link": Path(os.path.relpath(page, target)).as_posix() if page.exists() else "",
        "data": one.data,
        "model": one.settings.model.name,
        "score": format_value(one.block.get(metric)),
        "interval": format_interval(*pair) if pair else "",
        "metric": metric_label(metric, one.settings.task.unit),
        "split": one.split,
        "subjects": one.block.get("subjects", ""),
        "time": format_quantity(one.seconds, "s"),
        "differences": differences,
        "resumed": mark_extension(one.run),
    }
