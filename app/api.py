"""The commands as Python functions, for notebooks and scripts, each in a child process."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlift.app.errors import SettingsError, UserError
from voxlift.app.files import read_json, read_rows
from voxlift.app.inference.run import Run, open_run
from voxlift.app.runtime.child import python_module
from voxlift.app.runtime.exit_status import DONE, USER_ERROR

if TYPE_CHECKING:
    from pathlib import PurePath


@dataclass(frozen=True)
class Results:
    """What a command has written.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def report(self) -> Path:
        """The page with tables and figures."""
        return self.path / "report.html"


class Comparison(Results):
    """A finished comparison."""

    @property
    def results(self) -> dict[str, Any]:
        """`comparison.json`: metrics of each model, paired differences and tests, the verdict."""
        return read_json(self.path / "comparison.json")

    @property
    def runs(self) -> list[Run]:
        """The runs that were compared."""
        return [open_run(row["run"]) for row in read_rows(self.path / "trials.csv")]


class Evaluation(Results):
    """A finished run scored on external data."""

    @property
    def metrics(self) -> dict[str, Any]:
        """`metrics.json`: `external`, `internal`, their `difference`, calibration, the range of training."""
        return read_json(self.path / "metrics.json")


class Study(Results):
    """A finished study."""

    @property
    def results(self) -> dict[str, Any]:
        """`results.json`: recommendation, findings, what was varied and what was held fixed."""
        return read_json(self.path / "results.json")

    @property
    def table(self) -> list[dict[str, str]]:
        """Rows of `table.csv`, all values as text."""
        return read_rows(self.path / "table.csv")


def train(*overrides: str, run_dir: str | PurePath) -> Run:
    """Train one model as `voxlift-train` does, print its output, and open the finished run.

    The training runs in a process of its own, so that it leaves this one's seeds, threads, memory and
    precision alone.

    Args:
        *overrides: Settings as on the command line, such as `model=volume3d` or `data.table=labels.csv`.
        run_dir: The folder of the run.

    Raises:
        SettingsError: The settings or the data cannot be used.
        UserError: The training stopped with an error.
    """
    _run_command("train", [*overrides, f"run_dir={run_dir}"])
    return open_run(run_dir)


def compare(models: Sequence[str], *overrides: str, run_dir: str | PurePath) -> Comparison:
    """Compare models as `voxlift-compare` does, print its output, and open the finished comparison.

    The same call resumes a comparison that was stopped, and returns at once where it is finished.

    Args:
        models: Names of the group `model` or of experiments, such as `["slice2d", "volume3d"]`.
        *overrides: Settings as on the command line.
        run_dir: The folder of the comparison.

    Raises:
        SettingsError: The settings or the data cannot be used.
        UserError: The comparison stopped with an error.
    """
    _run_command("compare", [f"models=[{','.join(models)}]", *overrides, f"run_dir={run_dir}"])
    return Comparison(Path(run_dir))


def evaluate(run: Run | str | PurePath, *overrides: str, output: str | PurePath) -> Evaluation:
    """Score other subjects with a finished run as `voxlift-evaluate` does, print its output, and open it.

    Args:
        run: The run, or its folder.
        *overrides: Settings as on the command line; `data.table=other.csv` names the subjects.
        output: The folder of the results.

    Raises:
        SettingsError: The settings or the data cannot be used, or the run was trained on these subjects.
        UserError: The command stopped with an error.
    """
    folder = run.folder.path if isinstance(run, Run) else run
    _run_command("evaluate", [f"run={folder}", *overrides, f"output={output}"])
    return Evaluation(Path(output))


def study(name: str, *overrides: str, run_dir: str | PurePath) -> Study:
    """Run a study as `voxlift-study` does, print its output, and open it.

    The same call resumes a study that was stopped.

    Args:
        name: Of the study, such as `complexity` or `architecture`.
        *overrides: Settings as on the command line.
        run_dir: The folder of the study.

    Raises:
        SettingsError: The settings or the data cannot be used.
        UserError: The study stopped with an error.
    """
    _run_command("study", [f"study={name}", *overrides, f"run_dir={run_dir}"])
    return Study(Path(run_dir))


def _run_command(name: str, overrides: Sequence[str]) -> None:
    """Run a command in a child process and print its lines, also where only `sys.stdout` is shown."""
    command = python_module(f"voxlift.app.cli.{name}", *overrides)
    last_line = ""
    with subprocess.Popen(  # noqa: S603 - our own module, no shell
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as child:
        for line in child.stdout or ():
            print(line, end="", flush=True)  # noqa: T201 - what the command prints
            last_line = line.strip() or last_line
    if child.returncode == USER_ERROR:
        raise SettingsError(last_line.removeprefix("error: "))
    if child.returncode != DONE:
        raise UserError(f"voxlift-{name} ended with status {child.returncode}: {last_line}")
