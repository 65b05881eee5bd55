"""A prediction from its settings to its table: goes on where it was interrupted, tells what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from voxlift.app.config import PredictSettings
from voxlift.app.files import write_json
from voxlift.app.inference.ensemble import Ensemble, open_ensemble
from voxlift.app.inference.inputs import build_predictor, scans_of
from voxlift.app.inference.loop import PartialTable, Predictor, scan_key
from voxlift.app.inference.methods import explain_method
from voxlift.app.progress import progress_bar, say
from voxlift.app.runtime.exit_status import DONE, USER_ERROR
from voxlift.app.runtime.failures import scoring_need, told_in_sentences
from voxlift.app.runtime.logs import logging_to_file
from voxlift.data_pipelines.scans import Scan


def run_prediction(settings: PredictSettings) -> int:
    """Score every scan, write the table and how it was made, and say what came of it.

    Returns:
        The exit status: 0, or 2 where not one scan could be scored.

    Raises:
        SettingsError, ManifestError: the runs or the input cannot be used at all; nothing is written.
    """
    runs = [str(run) for run in settings.run] if isinstance(settings.run, list) else [str(settings.run)]
    with logging_to_file():
        ensemble = open_ensemble(runs)
        scans = scans_of(settings, ensemble)
        predictor = build_predictor(settings, ensemble)
        say_rules(ensemble, settings)
        with told_in_sentences(scoring_need(predictor.batch_size)):
            rows = _predict_into(Path(settings.output).expanduser(), scans, predictor, settings=settings)
    say_outcome(rows, predictor, settings=settings)
    return DONE if any(not row["reason"] for row in rows) else USER_ERROR


def _predict_into(
    output: Path, scans: Sequence[Scan], predictor: Predictor, *, settings: PredictSettings
) -> list[dict[str, Any]]:
    ensemble = predictor.ensemble
    table = PartialTable(output, columns=predictor.columns, question=question_of(ensemble, settings))
    if table.rows:
        say(f"{len(table.rows)} scans were scored before; going on with the others.")
    try:
        with progress_bar("Predicting", len(scans)) as advance:
            predictor.predict(scans, table, advance=advance)
    except KeyboardInterrupt:
        say(f"{len(table.rows)} of {len(scans)} scans are kept; the same command goes on from there.")
        raise
    rows = table.finish([scan_key(scan) for scan in scans])
    write_json(output.with_suffix(".json"), account_of(rows, ensemble, settings))
    return rows


def question_of(ensemble: Ensemble, settings: PredictSettings) -> dict[str, Any]:
    """All that a row depends on, besides its scan."""
    models = [member.run.model for member in ensemble.members]
    return {
        "models": [[str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns] for path in models],
        "tta": settings.tta,
        "explain": [explain_method(settings), settings.explain_class, settings.explain_layer],
    }


def account_of(
    rows: Sequence[dict[str, Any]], ensemble: Ensemble, settings: PredictSettings
) -> dict[str, Any]:
    """How the table was made, for whoever reads it later."""
    return {
        "runs": [str(member.run.path.absolute()) for member in ensemble.members],
        "input": str(Path(str(settings.input)).expanduser().absolute()),
        "classes": list(ensemble.classes),
        "threshold": ensemble.threshold,
        "thresholds": [member.threshold for member in ensemble.members],
        "temperatures": [member.temperature for member in ensemble.members],
        "tta": settings.tta,
        "explain": explain_method(settings),
        "scans": len(rows),
        "failed": sum(bool(row["reason"]) for row in rows),
        "warned": sum(bool(row["warning"]) for row in rows),
        "decisions": dict(Counter(row["decision"] for row in rows if row["decision"])),
    }


def say_rules(ensemble: Ensemble, settings: PredictSettings) -> None:
    """How decisions are made, and what could not be compared."""
    several = f", the mean over {len(ensemble.members)} runs" if len(ensemble.members) > 1 else ""
    if ensemble.threshold is not None:
        name = ensemble.classes[1]
        rule = f"{name} where p_{name} is at least {ensemble.threshold:.3f}, the threshold of the validation"
    else:
        rule = "the most probable class"
    say(f"Decision: {rule}{several}.")
    temperatures = [member.temperature for member in ensemble.members]
    if any(value != 1 for value in temperatures):
        listed = ", ".join(f"{value:.3f}" for value in temperatures)
        say(f"Calibrated: after temperature {listed}, fitted on validation.")
    if settings.tta != "none":
        say(f"Test-time augmentation: {settings.tta}; probabilities are means over the views.")
    for member in ensemble.members:
        if member.seen is None:
            say(f"{member.run.path} does not say what its training saw: no warnings compare with it.")


def say_outcome(rows: Sequence[dict[str, Any]], predictor: Predictor, *, settings: PredictSettings) -> None:
    """How many scans were scored, as what, how many could not be, and where the results are."""
    failed = sum(bool(row["reason"]) for row in rows)
    warned = sum(bool(row["warning"]) for row in rows)
    counts = Counter(row["decision"] for row in rows if row["decision"])
    decided = ", ".join(f"{counts[name]} {name}" for name in predictor.ensemble.classes if counts[name])
    said = f"{len(rows) - failed} of {len(rows)} scans scored" + (f": {decided}" if decided else "")
    said += f"; {failed} could not be (see the column reason)" if failed else ""
    say(f"{said}; {warned} with a warning." if warned else f"{said}.")
    if predictor.explaining is not None:
        say(f"Maps and pictures in {predictor.explaining.folder}")
    say(f"Results in {settings.output}")
