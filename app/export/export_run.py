"""Export a finished run into a folder: the model, its contract, and an example script that uses both."""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path
from typing import Any

from voxlift.app.errors import UserError
from voxlift.app.export.contract import build_contract
from voxlift.app.files import write_json, write_text
from voxlift.app.inference.conversion import (
    Difference,
    compare_converted,
    convert_to_float32,
    write_onnx,
    write_saved_model,
)
from voxlift.app.inference.ensemble import Ensemble, open_ensemble
from voxlift.app.progress import phase, print_line
from voxlift.app.runs.folder import load_network
from voxlift.app.runtime.setup import rounding_tolerance

COPIED_FILES = ("contract.schema.json", "score_image.py")


def export_run(run_dir: str, folder: Path, *, file_format: str) -> Difference:
    """Write a run's model, read it back, compare it, and write the contract beside it.

    Args:
        run_dir: Folder of a finished run.
        folder: A new or empty folder; removed or emptied again if the export fails.
        file_format: `saved_model` or `onnx`.

    Returns:
        The differences of the exported model from the run's network.

    Raises:
        SettingsError: The folder is not a finished run.
        UserError: The exported model's scores differ from its network's by more than rounding.
    """
    ensemble = open_ensemble([run_dir])
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return _export_into(folder, ensemble, file_format)
    except BaseException:
        _remove_all(folder, keep=existed)
        raise


def _export_into(folder: Path, ensemble: Ensemble, file_format: str) -> Difference:
    (member,) = ensemble.members
    own, exported = load_network(member.run.network), load_network(member.run.network)
    if file_format == "onnx" and convert_to_float32(exported):
        print_line("ONNX has no bfloat16 convolution: the export computes in float32.")
    write = write_onnx if file_format == "onnx" else write_saved_model
    with phase(f"Writing {file_format}"):
        written = write(exported, folder)
    # Checked is the agreement with the network it was made from; reported is that with the run's network.
    predict = ensemble.task.predict
    _check_agreement(
        compare_converted(written.score, exported, member.training_range, predict=predict), exported
    )
    difference = compare_converted(written.score, own, member.training_range, predict=predict)
    contract = build_contract(
        member,
        ensemble.preprocess,
        file=written.file,
        file_format=file_format,
        input_names=written.input_names,
        output_name=written.output_name,
        shape=tuple(own.inputs[0].shape),
        checked={
            "volumes": difference.volumes,
            "largest_score_difference": difference.scores,
            **(
                {"largest_probability_difference": difference.probabilities}
                if ensemble.task.has_probabilities
                else {}
            ),
        },
    )
    if not (folder / written.file).exists():
        raise UserError(f"{folder / written.file}: expected the exporter to write it; it did not.")
    _write_contract(folder, contract)
    return difference


def _write_contract(folder: Path, contract: dict[str, Any]) -> None:
    for name in COPIED_FILES:
        write_text(folder / name, resources.files("voxlift.app.export").joinpath(name).read_text("utf-8"))
    write_json(folder / "contract.json", contract)  # last: an export with a contract is complete


def _check_agreement(difference: Difference, network: Any) -> None:  # noqa: ANN401 - untyped Keras
    """Raise UserError if the scores differ by more than rounding."""
    tolerance = rounding_tolerance(network)
    if not difference.relative <= tolerance:  # also for NaN
        raise UserError(
            f"Expected the scores of the exported model to equal those of its network up to {tolerance:g} of "
            f"the largest score; they differ by {difference.relative:.1e}. Nothing is written. Try the other "
            "format."
        )


def _remove_all(folder: Path, *, keep: bool) -> None:
    """Remove what a failed export wrote; the folder was new or empty before."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not keep:
        folder.rmdir()
