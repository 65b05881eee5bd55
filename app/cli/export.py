"""`voxlift-export`: write a finished run as a model for other programs, with its preprocessing contract."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from omegaconf import DictConfig

from voxlift.app.cli.command import run_command
from voxlift.app.config import ExportSettings, find_choice_problems
from voxlift.app.config.overrides import to_settings
from voxlift.app.errors import install_extra, refuse_problems
from voxlift.app.files import find_output_folder_problems, find_run_problems
from voxlift.app.progress import print_line
from voxlift.app.runtime.exit_status import DONE
from voxlift.app.runtime.setup import import_user_modules

FORMATS = ("saved_model", "onnx")
ONNX_PACKAGES = ("tf2onnx", "onnx", "onnxruntime")


def main() -> None:
    """Run the console script."""
    run_command("export", read=read_settings, job=export, is_supervised=True)


def read_settings(cfg: DictConfig) -> ExportSettings:
    """Return the checked settings of a composed configuration.

    Raises:
        SettingsError: All problems at once.
    """
    settings = to_settings(cfg, ExportSettings)
    refuse_problems(find_problems(settings))
    return settings


def find_problems(settings: ExportSettings) -> list[str]:
    """Return one sentence for each problem in the settings."""
    problems = find_choice_problems("format", settings.format, FORMATS)
    problems += find_run_problems(settings.run)
    if settings.output is None:
        problems.append(
            "output: expected the folder to write to, new or empty, received nothing; set output=FOLDER."
        )
    else:
        problems += find_output_folder_problems(settings.output)
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if settings.format == "onnx" and missing:
        packages = "package" if len(missing) == 1 else "packages"
        problems.append(f"format=onnx: expected the {packages} {', '.join(missing)}. {install_extra('onnx')}")
    return problems


def export(settings: ExportSettings) -> int:
    """Export the run and print how far the written model is from it.

    Returns:
        The exit status, 0.

    Raises:
        SettingsError: The folder is not a finished run.
        UserError: The written model gives other scores than the run's own; nothing is left.
    """
    from voxlift.app.export.export_run import export_run  # slow; only after the checks
    from voxlift.app.runtime.logs import logging_to_file

    import_user_modules(settings.custom)
    folder = Path(str(settings.output)).expanduser()
    with logging_to_file():
        difference = export_run(str(settings.run), folder, file_format=settings.format)
    print_line(
        f"Read back and compared on {difference.volumes} volumes: scores differ by at most "
        f"{difference.scores:.1e}, predictions by {difference.probabilities:.1e}."
    )
    print_line(f"To score an image with it: python {folder / 'score_image.py'} IMAGE")
    print_line(f"Export in {folder}")
    return DONE


if __name__ == "__main__":
    main()
