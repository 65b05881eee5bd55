"""`voxlift-predict`: score new volumes with finished runs, one row each, with explanation maps on request."""

from __future__ import annotations

from omegaconf import DictConfig

from voxlift.app.cli.command import run_command
from voxlift.app.config import (
    PredictSettings,
    find_centre_problems,
    find_choice_problems,
    find_count_problems,
    find_report_problems,
)
from voxlift.app.config.overrides import to_settings
from voxlift.app.errors import refuse_problems
from voxlift.app.files import find_description_problems, find_output_file_problems
from voxlift.app.inference.options import (
    ENGINES,
    EXPLAIN_METHODS,
    VIEWS,
    find_engine_problems,
    resolve_explain_method,
)
from voxlift.app.progress import print_line
from voxlift.app.runtime.cluster import find_cluster_problems, format_job_script
from voxlift.app.runtime.exit_status import DONE
from voxlift.app.runtime.setup import import_user_modules


def main() -> None:
    """Run the console script."""
    run_command("predict", read=read_settings, job=predict, is_supervised=True)


def read_settings(cfg: DictConfig) -> PredictSettings:
    """Return the checked settings of a composed configuration.

    Raises:
        SettingsError: All problems at once.
    """
    settings = to_settings(cfg, PredictSettings)
    refuse_problems(find_problems(settings))
    return settings


def find_problems(settings: PredictSettings) -> list[str]:
    """Return one sentence for each problem in the settings."""
    problems = find_choice_problems("tta", settings.tta, VIEWS)
    if not settings.run:
        problems.append("run: expected the folder of a finished run, or a list of them; set run=RUN_DIR.")
    if settings.input is None:
        problems.append("input: expected an image, a folder or a table; set input=PATH.")
    if resolve_explain_method(settings) not in (None, *EXPLAIN_METHODS):
        problems.append(
            f"explain: expected true, false, {', '.join(EXPLAIN_METHODS)}; received {settings.explain}."
        )
    problems += find_count_problems("batch_size", settings.batch_size)
    problems += find_choice_problems("engine", settings.engine, ENGINES)
    problems += find_engine_problems(settings.engine, cluster=settings.cluster.name)
    problems += find_report_problems(settings.report)
    problems += find_centre_problems("", settings.centre_columns, settings.centre_space)
    ending = ".npz" if settings.embed and settings.output.lower().endswith(".npz") else ".csv"
    problems += find_output_file_problems(settings.output, ending=ending, overwrite=settings.overwrite)
    problems += find_description_problems(settings.output)
    problems += find_cluster_problems(settings.cluster)
    if settings.embed:
        problems += _find_embed_problems(settings)
    return problems


def _find_embed_problems(settings: PredictSettings) -> list[str]:
    problems = []
    if isinstance(settings.run, list) and len(settings.run) > 1:
        problems.append("embed=true: expected one run; the features of several cannot be averaged.")
    if settings.tta != "none" or resolve_explain_method(settings) is not None:
        problems.append("embed=true: expected tta=none and explain=false.")
    if settings.engine != "tensorflow":
        problems.append(f"embed=true: expected engine=tensorflow; received {settings.engine}.")
    if settings.cluster.name != "none":
        problems.append(f"embed=true: expected cluster=none; received {settings.cluster.name}.")
    return problems


def predict(settings: PredictSettings) -> int:
    """Score every scan, write the table and how it was made, and print a summary.

    Returns:
        The exit status: 0, or 2 where no scan could be scored.

    Raises:
        SettingsError, ManifestError: The runs or the input cannot be used at all; nothing is written.
    """
    if settings.cluster.dry_run:
        print_line(format_job_script(settings.cluster))
        return DONE
    import_user_modules(settings.custom)
    if settings.embed:
        from voxlift.app.inference.embed import run_embedding  # as below

        return run_embedding(settings)
    from voxlift.app.inference.predict import run_prediction  # slow; only after the checks
    from voxlift.app.report.prediction_page import write_prediction_page

    return run_prediction(settings, write_page=write_prediction_page)


if __name__ == "__main__":
    main()
