"""Lay out predictions for new scans, with their maps, as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import PredictSettings
from voxlift.app.inference.ensemble import Ensemble
from voxlift.app.inference.maps import METHOD_NAMES, explain_scan
from voxlift.app.inference.predict import count_decisions
from voxlift.app.inference.predictor import Predictor, scan_key
from voxlift.app.inference.scans import prepare_scan
from voxlift.app.progress import progress_bar
from voxlift.app.report.case_facts import CaseFacts, name_scan
from voxlift.app.report.case_viewer import CaseModels, lay_out_cases
from voxlift.app.report.cases import Case, build_grid, cut_case, place_sprite
from voxlift.app.report.pages import timestamp, write_page
from voxlift.app.report.sprites import find_object
from voxlift.app.report.tables import show_path, table_cells
from voxlift.app.runs.configuration import describe_extensions
from voxlift.data_pipelines.scans import Scan

MAX_ROWS = 200  # of the table on the page; the CSV file holds all
LEFT_OUT = ("image", "map", "picture", "agreement")
DECIDED = "decision_"  # of a finding

Row = Mapping[str, Any]


def write_prediction_page(
    rows: Sequence[Row], scans: Sequence[Scan], predictor: Predictor, settings: PredictSettings
) -> Path | None:
    """Write `report.html` into the folder of the maps, and return its path; None without maps or cases.

    Args:
        rows: Of the table, all of them.
        scans: The scans, in the same order.
        predictor: With its networks, which explain the scans that are shown once more.
        settings: With the number of cases.
    """
    if predictor.maps is None or settings.report.cases == 0:
        return None
    ensemble, folder = predictor.ensemble, predictor.maps.folder
    scored = [i for i, row in enumerate(rows) if not row["reason"]]
    subjects, items = zip(*(scan_key(scan) for scan in scans), strict=True)
    names = [name_scan(subjects, items, index) for index in range(len(scans))]
    groups = choose_scans({i: _confidence(rows[i], ensemble) for i in scored}, settings.report.cases)
    shown: list[tuple[str, list[CaseModels]]] = []
    with progress_bar("Writing the page", sum(len(own) for _, own in groups)) as advance:
        for heading, own in groups:
            volumes: list[CaseModels] = []
            for index in own:
                volumes += [
                    {"": case} for case in _build_cases(rows[index], scans[index], predictor, names[index])
                ]
                advance()
            shown.append((heading, volumes))
    cases = lay_out_cases(shown, is_interactive=settings.report.interactive)
    values = {
        "title": f"Predictions for {show_path(str(settings.input), folder)}",
        "created": timestamp(),
        "verdict": _describe_rows(rows, ensemble),
        "notes": [
            f"Run: {', '.join(show_path(member.run.path, folder) for member in ensemble.members)}.",
            *(text for member in ensemble.members for text in describe_extensions(member.run)),
            f"{ensemble.rule}. All predictions are in {Path(settings.output).name}.",
        ],
        "cases": cases,
        "viewer": cases.viewer,
        "method": METHOD_NAMES["occlusion" if predictor.maps.method == "occlusion" else "gradcam"],
        "predictions": table_cells(
            _drop_empty(
                [
                    {**_table_row(row), "subject": name}
                    for row, name in zip(rows[:MAX_ROWS], names, strict=False)
                ]
            )
        ),
        "rows": len(rows),
    }
    return write_page("prediction.html.j2", predictor.maps.folder / "report.html", values)


def choose_scans(confidence: Mapping[int, float | None], count: int) -> list[tuple[str, list[int]]]:
    """Return the scans that a page shows, under their headings: the surest and the least sure decisions.

    Args:
        confidence: Of each scan that was scored; None where there is no probability.
        count: Of the scans that are shown, at most.

    >>> choose_scans({0: 0.9, 1: 0.6, 2: 0.7}, 2)
    [('Surest decision', [0]), ('Least sure decision', [1])]
    """
    order = sorted(confidence, key=lambda index: -(confidence[index] or 0))
    if len(order) <= count or any(value is None for value in confidence.values()):
        return [("Scans", order[:count])]
    surest, least = (count + 1) // 2, count // 2
    word = "decisions" if count > 2 else "decision"
    return [(f"Surest {word}", order[:surest]), (f"Least sure {word}", order[::-1][:least])]


def _build_cases(row: Row, scan: Scan, predictor: Predictor, name: str) -> list[Case]:
    """Return the case of one scan; none where it can no longer be read."""
    ensemble, options = predictor.ensemble, predictor.maps
    shape = tuple(predictor.networks[0].input_shape[1:])
    prepared = prepare_scan(scan, ensemble.preprocess, shape=shape)
    if prepared.voxels is None or options is None:
        return []
    task, names = ensemble.task, ensemble.classes
    prediction = _prediction(row, ensemble)
    decision = task.decide_rows(prediction[None], ensemble.thresholds)[0]
    output = task.map_output(prediction, decision, options.label)
    found = explain_scan(
        prepared,
        ensemble,
        predictor.networks,
        label=output,
        method=options.method,
        layer=options.layer,
        occluded=predictor.occluded,
    )
    sprite = place_sprite(
        prepared.voxels,
        build_grid(ensemble.preprocess, prepared.affine),
        found.scaled,
        name=METHOD_NAMES[found.method],
    )
    case = Case(
        subject=name,
        truth=describe_prediction(row, ensemble, task.map_title(output, prediction, names)[1]),
        decided="",
        planes=(),
        sprite=sprite,
        facts=CaseFacts(
            outcome=str(row.get("decision", "")),
            noun=ensemble.task.noun.capitalize(),
            confidence=_confidence(row, ensemble),
            groups={"Warning": "yes" if row["warning"] else "no"},
        ),
    )
    return [cut_case(case, find_object(sprite))]


def describe_prediction(row: Row, ensemble: Ensemble, explained: str) -> str:
    """Return what was predicted for a scan: the decision, the probability of what, and the threshold.

    Args:
        row: Of the table.
        ensemble: The runs.
        explained: What its map explains, with the value.
    """
    names, decision = ensemble.classes, row.get("decision")
    if not decision:
        return f"predicted {explained}"
    named = names[1] if len(names) == 2 else decision
    text = f"decided {decision}: probability of {named} {float(row[f'p_{named}']):.3f}"
    text += f"; map of {explained}" if ensemble.task.map_kind == "cut" else ""
    return text + (f", threshold {ensemble.thresholds[0]:.3f}" if len(ensemble.thresholds) == 1 else "")


def _prediction(row: Row, ensemble: Ensemble) -> NDArray[np.float64]:
    prediction: NDArray[np.float64] = ensemble.task.read_predictions([row], ensemble.classes)[0]
    return prediction


def _confidence(row: Row, ensemble: Ensemble) -> float | None:
    """Return the probability of the decision, of several findings the least one; None for a number."""
    if not ensemble.task.has_probabilities:
        return None
    prediction = _prediction(row, ensemble)
    if row.get("decision"):
        return float(row[f"p_{row['decision']}"])
    return float(np.maximum(prediction, 1 - prediction).min())


def _describe_rows(rows: Sequence[Row], ensemble: Ensemble) -> str:
    """Return how many scans were scored, as which class or with which findings, and with a warning."""
    scored = [row for row in rows if not row["reason"]]
    counts = count_decisions(scored, ensemble)
    decided = ", ".join(f"{count} {name}" for name, count in counts.items())
    warned = sum(bool(row["warning"]) for row in scored)
    text = f"{len(scored)} of {len(rows)} scans were scored{f': {decided}' if decided else ''}."
    return text + (f" {warned} with a warning." if warned else "")


def _table_row(row: Row) -> dict[str, object]:
    return {
        name: str(value) if name.startswith(DECIDED) else _as_number(value)
        for name, value in row.items()
        if name not in LEFT_OUT
    }


def _drop_empty(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Return rows without the columns that are empty in all of them."""
    kept = {name for row in rows for name, value in row.items() if value not in ("", None)}
    return [{name: value for name, value in row.items() if name in kept} for row in rows]


def _as_number(value: object) -> object:
    try:
        return float(str(value))
    except ValueError:
        return value
