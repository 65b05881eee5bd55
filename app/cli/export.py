"""`voxlift-export`: a finished run as a model for other programs, with all that they must know beside it."""

from __future__ import annotations

import importlib.util
import shutil
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlift.app.cli.command import open_command, reader
from voxlift.app.config import ExportSettings, choice_problem
from voxlift.app.errors import UserError, install_extra
from voxlift.app.files import finished_run_problems, output_folder_problems, write_json, write_text
from voxlift.app.progress import console, say
from voxlift.app.runtime.exit_status import DONE
from voxlift.app.runtime.precision import rounding_tolerance

if TYPE_CHECKING:
    from voxlift.app.export.write import Difference, Written
    from voxlift.app.inference.ensemble import Ensemble


FORMATS = ("saved_model", "onnx")
ONNX_PACKAGES = ("tf2onnx", "onnx", "onnxruntime")
COPIED = ("contract.schema.json", "score_image.py")


def main() -> None:
    """The console script."""
    open_command("export", read=reader(ExportSettings, find_problems), job=export, is_supervised=True)


def find_problems(settings: ExportSettings) -> list[str]:
    """One sentence for each thing wrong with the settings, before anything is read."""
    problems = choice_problem("format", settings.format, FORMATS)
    problems += finished_run_problems(settings.run)
    if settings.output is None:
        problems.append("output: where should the export go? Say output=FOLDER.")
    else:
        problems += output_folder_problems(settings.output)
    absent = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if settings.format == "onnx" and absent:
        problems.append(
            f"format=onnx: expected the package{'s' * (len(absent) > 1)} {', '.join(absent)}. "
            f"{install_extra('onnx')}"
        )
    return problems


def export(settings: ExportSettings) -> int:
    """Write the model, read it back, compare it, and write the contract beside it.

    Returns:
        The exit status, 0.

    Raises:
        SettingsError: the run is none, or not finished.
        UserError: the written model gives other scores than the run's own; nothing is left.
    """
    from voxlift.app.inference.ensemble import open_ensemble
    from voxlift.app.runtime.logs import logging_to_file

    folder = Path(str(settings.output)).expanduser()
    existed = folder.exists()
    with logging_to_file():
        ensemble = open_ensemble([str(settings.run)])
        folder.mkdir(parents=True, exist_ok=True)
        try:
            difference = _export_into(folder, ensemble, settings.format)
        except BaseException:
            _remove_all(folder, keep=existed)
            raise
    say(
        f"Read back and compared on {difference.volumes} volumes: scores differ by at most "
        f"{difference.scores:.1e}, probabilities by {difference.probabilities:.1e}.",
    )
    say(f"Export in {folder}")
    return DONE


def _export_into(folder: Path, ensemble: Ensemble, file_format: str) -> Difference:
    from voxlift.app.export.contract import build_contract
    from voxlift.app.export.write import compare_written, in_float32, write_onnx, write_saved_model
    from voxlift.app.runs.networks import load_network

    (member,) = ensemble.members
    own, written_from = load_network(member.run.model), load_network(member.run.model)
    if file_format == "onnx" and in_float32(written_from):
        say("ONNX has no bfloat16 convolution: the export computes in float32.")
    write = write_onnx if file_format == "onnx" else write_saved_model
    with console.status(f"Writing {file_format}"):
        written = write(written_from, folder)
    # The file is held to the network that it was made of; what is told is how far it is from the run's.
    _refuse_other_scores(compare_written(written.score, written_from, member.seen), written_from)
    difference = compare_written(written.score, own, member.seen)
    contract = build_contract(
        member,
        ensemble.preprocess,
        file=written.file,
        file_format=file_format,
        input_name=written.input_name,
        output_name=written.output_name,
        shape=own.input_shape,
        checked=_account(difference),
    )
    _write_beside(folder, contract, written)
    return difference


def _write_beside(folder: Path, contract: dict[str, Any], written: Written) -> None:
    for name in COPIED:
        write_text(folder / name, resources.files("voxlift.app.export").joinpath(name).read_text("utf-8"))
    write_json(folder / "contract.json", contract)  # last: an export with a contract is whole
    if not (folder / written.file).exists():
        raise UserError(f"{folder / written.file}: expected the exporter to write it; it did not.")


def _account(difference: Difference) -> dict[str, Any]:
    return {
        "volumes": difference.volumes,
        "largest_score_difference": difference.scores,
        "largest_probability_difference": difference.probabilities,
    }


def _refuse_other_scores(difference: Difference, network: Any) -> None:  # noqa: ANN401 - untyped Keras
    tolerance = rounding_tolerance(network)
    if not difference.relative <= tolerance:
        raise UserError(
            f"The exported model was expected to agree to {tolerance:g} of the largest score with the "
            f"network it was made of; it differs by {difference.relative:.1e}. Nothing is written; try the "
            "other format."
        )


def _remove_all(folder: Path, *, keep: bool) -> None:
    """Undo a failed export: the folder was new or empty."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not keep:
        folder.rmdir()


if __name__ == "__main__":
    main()
