"""`voxlift-predict`: new volumes through finished runs, one row each, with maps if asked for."""

from __future__ import annotations

from voxlift.app.cli.command import open_command, reader
from voxlift.app.config import PredictSettings, choice_problem, count_problem
from voxlift.app.files import output_file_problems
from voxlift.app.inference.methods import METHODS, explain_method

VIEWS = ("none", "flips", "half_turns", "shifts")


def main() -> None:
    """The console script."""
    open_command("predict", read=reader(PredictSettings, find_problems), job=predict, is_supervised=True)


def find_problems(settings: PredictSettings) -> list[str]:
    """One sentence for each thing wrong with the settings, before anything is read."""
    problems = choice_problem("tta", settings.tta, VIEWS)
    if not settings.run:
        problems.append("run: expected the folder of a finished run, or a list of them; say run=RUN_DIR.")
    if settings.input is None:
        problems.append("input: expected an image, a folder or a table; say input=PATH.")
    if explain_method(settings) not in (None, *METHODS):
        problems.append(f"explain: expected true, false, {', '.join(METHODS)}; received {settings.explain}.")
    problems += count_problem("batch_size", settings.batch_size)
    problems += output_file_problems(settings.output, ending=".csv", overwrite=settings.overwrite)
    return problems


def predict(settings: PredictSettings) -> int:
    """Score every scan, write the table and how it was made, and say what came of it.

    Returns:
        The exit status: 0, or 2 where not one scan could be scored.

    Raises:
        SettingsError, ManifestError: the runs or the input cannot be used at all; nothing is written.
    """
    from voxlift.app.inference.predict import run_prediction  # behind the checks, which shall not wait for it

    return run_prediction(settings)


if __name__ == "__main__":
    main()
