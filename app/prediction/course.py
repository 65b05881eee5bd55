"""A prediction from its settings to its table: goes on where it was interrupted, tells what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from voxlift.app.course.failures import scoring_need, told_in_sentences
from voxlift.app.files import write_json
from voxlift.app.prediction.ensemble import open_ensemble
from voxlift.app.prediction.opening import build_predictor, scans_of
from voxlift.app.prediction.partial import PartialTable
from voxlift.app.prediction.running import Predictor, scan_key
from voxlift.app.prediction.telling import account_of, question_of, say_outcome, say_rules
from voxlift.app.process.logs import logging_to_file
from voxlift.app.process.statuses import DONE, USER_ERROR
from voxlift.app.progress import progress_bar, say
from voxlift.app.settings import PredictSettings
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
