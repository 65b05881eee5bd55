"""`voxlift-report`: the reporting checklist of a finished run, or one page over all runs in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from voxlift.app.cli.command import run_command
from voxlift.app.config import ReportSettings, SettingsError, find_choice_problems
from voxlift.app.config.overrides import to_settings
from voxlift.app.errors import refuse_problems
from voxlift.app.files import read_json, refuse_unwritable
from voxlift.app.progress import print_line
from voxlift.app.runs.configuration import describe_extensions, load_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.suggestions import suggest_runs
from voxlift.app.runtime.exit_status import DONE

CHECKLISTS = ("claim",)


def main() -> None:
    """Run the console script."""
    run_command("report", read=read_settings, job=report)


def read_settings(cfg: DictConfig) -> ReportSettings:
    """Return the checked settings of a composed configuration.

    Raises:
        SettingsError: All problems at once.
    """
    settings = to_settings(cfg, ReportSettings)
    refuse_problems(find_problems(settings))
    return settings


def find_problems(settings: ReportSettings) -> list[str]:
    """Return one sentence for each problem in the settings."""
    problems = find_choice_problems("checklist", settings.checklist, CHECKLISTS)
    if (settings.run is None) == (settings.runs is None):
        problems.append(
            "run: expected the folder of one finished run; or runs: a folder with runs. Set one of both."
        )
    given = [key for key in ("external", "sample_size") if getattr(settings, key) is not None]
    if settings.run is None:
        problems += [f"{key}: expected run=RUN, too, whose checklist it fills." for key in given]
    return problems


def report(settings: ReportSettings) -> int:
    """Write the checklist of a run, or the page over all runs.

    Returns:
        The exit status, 0.

    Raises:
        SettingsError: There is no finished run.
    """
    if settings.runs is not None:
        from voxlift.app.report.runs_page import write_runs_page

        page = write_runs_page(Path(settings.runs).expanduser(), sort=settings.sort, output=settings.output)
        print_line(f"Results in {page}")
        return DONE
    return _write_checklist(settings)


def _write_checklist(settings: ReportSettings) -> int:
    run = RunFolder(Path(str(settings.run)).expanduser())
    if not run.is_finished or not run.config.exists():
        raise SettingsError(f"run={settings.run}: expected a finished run. {suggest_runs(run.path)}")
    folder = run.path if settings.output is None else Path(settings.output).expanduser()
    refuse_unwritable(folder / "checklist.html", setting=f"output={folder}")
    from voxlift.app.report.checklist import build_checklist, write_checklist
    from voxlift.app.report.run_page import describe_task

    own = load_settings(run)
    checklist = build_checklist(
        run, own, read_json(run.metrics), external=read_external(settings, run), planned=read_plan(settings)
    )
    folder.mkdir(parents=True, exist_ok=True)
    paths = write_checklist(checklist, f"{own.model.name} on {describe_task(own.data)}", folder)
    print_line(checklist.summary)
    for sentence in describe_extensions(run):
        print_line(sentence)
    print_line(f"Results in {paths[0]}; beside it {', '.join(path.name for path in paths[1:])}")
    return DONE


def read_external(settings: ReportSettings, run: RunFolder) -> dict[str, Any] | None:
    """Return the metrics.json of an evaluation of a run on external data; None where none is named.

    Raises:
        SettingsError: The folder holds none, or one of other runs.
    """
    if settings.external is None:
        return None
    folder = Path(settings.external).expanduser()
    found = read_json(folder / "metrics.json") if (folder / "metrics.json").is_file() else {}
    if "external" not in found:
        raise SettingsError(
            f"external={settings.external}: expected a folder that voxlift-evaluate has written with "
            f"run={run.path} data.table=TABLE output={folder}."
        )
    if [Path(path).resolve() for path in found["runs"]] != [run.path.resolve()]:
        raise SettingsError(
            f"external={settings.external}: expected an evaluation of {run.path}; it is one of "
            f"{', '.join(found['runs'])}."
        )
    return dict(found)


def read_plan(settings: ReportSettings) -> dict[str, Any] | None:
    """Return the results.json of a study of the sample size; None where none is named.

    Raises:
        SettingsError: The folder holds none.
    """
    if settings.sample_size is None:
        return None
    file = Path(settings.sample_size).expanduser() / "results.json"
    found = read_json(file) if file.is_file() else {}
    if not any("n_per_class" in row for row in found.get("rows", ())):
        raise SettingsError(
            f"sample_size={settings.sample_size}: expected the folder of a finished study=sample_size, with "
            "results.json."
        )
    return dict(found)


if __name__ == "__main__":
    main()
