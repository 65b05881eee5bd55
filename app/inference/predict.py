"""`voxlift-predict` from its settings to its table; an interrupted prediction is resumed."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from voxlift.app.config import PredictSettings
from voxlift.app.evaluation.calibration import list_calibrations
from voxlift.app.files import NAMES, format_rows, read_json, read_rows, write_json, write_rows, write_text
from voxlift.app.inference.ensemble import Ensemble, open_ensemble
from voxlift.app.inference.options import resolve_explain_method
from voxlift.app.inference.predictor import Predictor, Row, build_predictor, scan_key
from voxlift.app.inference.scans import find_input_scans
from voxlift.app.inference.shards import score_scans
from voxlift.app.progress import print_line, progress_bar
from voxlift.app.runs.configuration import list_extensions
from voxlift.app.runtime.exit_status import DONE, USER_ERROR
from voxlift.app.runtime.failures import build_scoring_hint, translate_failures
from voxlift.app.runtime.logs import logging_to_file
from voxlift.data_pipelines.files import find_real_path, is_absent, remove_leftovers
from voxlift.data_pipelines.readers.identity import identify_image
from voxlift.data_pipelines.scans import Scan
from voxlift.data_pipelines.tables.manifest import split_item

WritePage: TypeAlias = Callable[[Sequence[Row], Sequence[Scan], Predictor, PredictSettings], Path | None]


def run_prediction(settings: PredictSettings, *, write_page: WritePage | None = None) -> int:
    """Score every scan, write the table and its description, and print a summary.

    Args:
        settings: Of the prediction.
        write_page: Called at the end with the rows, the scans, the predictor and the settings; returns the
            path of the page that it wrote, or None.

    Returns:
        The exit status: 0, or 2 where no scan could be scored.

    Raises:
        SettingsError, ManifestError: The runs or the input cannot be used at all; nothing is written.
    """
    runs = [str(run) for run in settings.run] if isinstance(settings.run, list) else [str(settings.run)]
    with logging_to_file():
        ensemble = open_ensemble(runs)
        scans = find_input_scans(str(settings.input), ensemble, settings)
        _warn_of_missing_files(scans, settings)
        predictor = replace(build_predictor(settings, ensemble), seen=find_seen(scans, ensemble))
        _print_seen(predictor.seen, scans)
        _print_rules(ensemble, settings)
        with translate_failures(build_scoring_hint(predictor.batch_size)):
            rows = _write_predictions(scans, predictor, settings)
            page = write_page(rows, scans, predictor, settings) if write_page else None
    _print_summary(rows, predictor, settings)
    if page is not None:
        print_line(f"Report {page}")
    return DONE if any(not row["reason"] for row in rows) else USER_ERROR


def _write_predictions(scans: Sequence[Scan], predictor: Predictor, settings: PredictSettings) -> list[Row]:
    ensemble, output = predictor.ensemble, Path(settings.output).expanduser()
    table = PartialTable(
        output, columns=predictor.columns, inputs=_describe_inputs(scans, ensemble, settings)
    )
    if table.rows:
        print_line(f"{len(table.rows)} scans were scored before; resuming with the others.")
    todo = [(number, scan) for number, scan in enumerate(scans, start=1) if not table.has(scan)]
    try:
        with progress_bar("Predicting", len(scans)) as advance:
            for _ in range(len(scans) - len(todo)):
                advance()
            for rows in score_scans(todo, predictor, settings):
                table.add(rows)
                for _ in rows:
                    advance()
    except KeyboardInterrupt:
        print_line(f"{len(table.rows)} of {len(scans)} scans are saved; the same command resumes from there.")
        raise
    rows = table.finish([scan_key(scan) for scan in scans])
    write_json(output.with_suffix(".json"), _describe_table(rows, predictor, settings))
    return rows


class PartialTable:
    """Rows of an unfinished table, kept in a file beside it.

    The same prediction, started again after a kill, finds the rows that were finished: the file's name holds
    a hash of its inputs. Rows with a reason are computed again, since their file may have been fixed, and so
    are those whose images have changed.

    Attributes:
        rows: Finished rows, by subject and image.

    Args:
        target: The table.
        columns: Columns of every row; `subject`, `image` and `reason` are among them.
        inputs: Everything that the rows depend on, besides the scans.
    """

    def __init__(self, target: Path, *, columns: Sequence[str], inputs: Mapping[str, Any]) -> None:
        text = json.dumps({"columns": list(columns), **inputs}, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        self.target, self.columns = target, list(columns)
        self.path = target.with_name(f".{target.name}-{digest}.partial")
        self.rows: dict[tuple[str, str], Row] = {}
        finished = [row for row in self._read() if not row["reason"] and self._is_current(row)]
        remove_leftovers(target.parent)
        write_text(self.path, format_rows(finished, self.columns))  # atomic: a kill keeps what was finished
        self._keep(finished)

    def has(self, scan: Scan) -> bool:
        """Return whether an earlier attempt scored the scan, and its images have not changed since."""
        return scan_key(scan) in self.rows

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep rows, in memory and on disk."""
        with self.path.open("a", encoding="utf-8", errors=NAMES, newline="") as file:
            csv.DictWriter(file, self.columns).writerows(rows)
        self._keep(rows)

    def finish(self, order: Sequence[tuple[str, str]]) -> list[Row]:
        """Write the table in the order of these keys, remove the partial file, and return the rows."""
        rows = [self.rows[key] for key in order]
        write_rows(self.target, [{column: row[column] for column in self.columns} for row in rows])
        self.path.unlink(missing_ok=True)
        return rows

    def _keep(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows |= {(str(row["subject"]), str(row["image"])): dict(row) for row in rows}

    def _is_current(self, row: Row) -> bool:
        """Return whether the images of a row have not changed since the last attempt wrote."""
        written = self.path.stat().st_mtime
        try:
            return all(image.stat().st_mtime <= written for image in split_item(row["image"]))
        except OSError:
            return False

    def _read(self) -> list[Row]:
        """Return the complete rows of an earlier attempt; a kill may have cut the last one."""
        if not self.path.exists():
            return []
        text = self.path.read_bytes().decode(errors=NAMES)
        complete = io.StringIO(text[: text.rfind("\n") + 1], newline="")
        return [row for row in csv.DictReader(complete) if None not in row and None not in row.values()]


def _describe_inputs(scans: Sequence[Scan], ensemble: Ensemble, settings: PredictSettings) -> dict[str, Any]:
    """Return everything that a row depends on, besides its images."""
    models = [member.run.network for member in ensemble.members]
    masks = [scan.region.mask for scan in scans if scan.region is not None and scan.region.mask is not None]
    return {
        **({"masks": [identify_image(mask) for mask in masks]} if masks else {}),
        **({"columns": [scan.cells for scan in scans]} if ensemble.joined_columns else {}),
        **({} if settings.engine == "tensorflow" else {"engine": settings.engine}),
        "models": [[str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns] for path in models],
        "tta": settings.tta,
        "explain": [resolve_explain_method(settings), settings.explain_class, settings.explain_layer],
    }


def _describe_table(rows: Sequence[Row], predictor: Predictor, settings: PredictSettings) -> dict[str, Any]:
    """Return the JSON file beside the table: how it was made."""
    ensemble = predictor.ensemble
    engines = [one.as_json() for one in predictor.engines]
    return {
        "runs": [str(member.run.path.absolute()) for member in ensemble.members],
        "input": str(Path(str(settings.input)).expanduser().absolute()),
        **describe_outputs(ensemble),
        "tta": settings.tta,
        "engine": settings.engine,
        **({} if settings.engine == "tensorflow" else {"engines": engines}),
        "explain": resolve_explain_method(settings),
        "scans": len(rows),
        "failed": sum(bool(row["reason"]) for row in rows),
        "warned": sum(bool(row["warning"]) for row in rows),
        "decisions": count_decisions(rows, ensemble),
    }


def describe_outputs(ensemble: Ensemble) -> dict[str, Any]:
    """Return what the columns hold: of classes their names, thresholds and calibrations."""
    task, names = ensemble.task, list(ensemble.classes)
    if task.is_nominal:
        listed = list_calibrations(ensemble.calibrations)
        return {
            "classes": names,
            "threshold": ensemble.threshold,
            "thresholds": [member.threshold for member in ensemble.members],
            "temperatures": listed["temperature"],
            **({"biases": listed["bias"]} if "bias" in listed else {}),
        }
    unit = ensemble.members[0].settings.task.unit
    return {
        "task": task.name,
        "outputs": names,
        **({"unit": unit} if unit else {}),
        **({"thresholds": dict(zip(names, ensemble.thresholds, strict=True))} if ensemble.thresholds else {}),
    }


def count_decisions(rows: Sequence[Mapping[str, Any]], ensemble: Ensemble) -> dict[str, int]:
    """Return how many scans were decided as each class, or to have each finding; nothing for a number."""
    task, names = ensemble.task, ensemble.classes
    counts = Counter(name for row in rows for name in task.decided_names(row, names))
    return {name: counts[name] for name in names if counts[name]}


def _warn_of_missing_files(scans: Sequence[Scan], settings: PredictSettings) -> None:
    missing = [scan for scan in scans if any(map(is_absent, scan.images))]
    if missing:
        print_line(
            f"The files of {len(missing)} of the {len(scans)} scans of {settings.input} do not exist. "
            "Relative paths start from root=FOLDER, by default the table's own folder."
        )


def find_seen(scans: Sequence[Scan], ensemble: Ensemble) -> frozenset[str]:
    """Return the images, as `scan_key` names them, that a run of the ensemble was trained on.

    A file is the same one where its real path and size are those of `images.json`; copies elsewhere are not
    found.
    """
    trained: set[tuple[str, int]] = set()
    for member in ensemble.members:
        run = member.run
        if run.images.exists() and run.splits.exists():
            saved = read_json(run.images)
            items = {row["image"] for row in read_rows(run.splits) if row["split"] == "train"}
            trained |= {
                (str(one[0]), int(one[1])) for item in items & set(saved) for one in saved[item]["files"]
            }
    return frozenset(scan_key(scan)[1] for scan in scans if _is_trained_on(scan, trained))


def _is_trained_on(scan: Scan, trained: Collection[tuple[str, int]]) -> bool:
    found = [
        (str(find_real_path(Path(file))), size)
        for image in scan.images
        for file, size, _ in identify_image(image)
    ]
    return any(one in trained for one in found if one[1] >= 0)


def _print_seen(seen: Collection[str], scans: Sequence[Scan]) -> None:
    if seen:
        count = sum(scan_key(scan)[1] in seen for scan in scans)
        print_line(
            f"{count} of {len(scans)} scans were seen in training (column warning): their predictions say "
            "nothing about new subjects."
        )


def _print_rules(ensemble: Ensemble, settings: PredictSettings) -> None:
    """Print how classes are predicted, and for which runs the training range is unknown."""
    mean = f", from the mean over {len(ensemble.members)} runs" if len(ensemble.members) > 1 else ""
    print_line(f"{ensemble.rule}{mean}.")
    if not all(one.is_neutral for one in ensemble.calibrations):
        values = "; ".join(one.describe(ensemble.classes) for one in ensemble.calibrations)
        print_line(f"Calibrated probabilities: temperature {values}, fitted on validation.")
    if settings.tta != "none":
        print_line(f"Test-time augmentation: {settings.tta}; predictions are means over the views.")
    for line in list_extensions(member.run for member in ensemble.members):
        print_line(line)
    for member in ensemble.members:
        if member.training_range is None:
            print_line(
                f"{member.run.path} has no training_range.json: its scans are not compared with training."
            )


def _print_summary(rows: Sequence[Row], predictor: Predictor, settings: PredictSettings) -> None:
    """Print how many scans were scored, as which class, how many failed, and where the results are."""
    failed = sum(bool(row["reason"]) for row in rows)
    warned = sum(bool(row["warning"]) for row in rows)
    counts = count_decisions(rows, predictor.ensemble)
    decided = ", ".join(f"{count} {name}" for name, count in counts.items())
    summary = f"{len(rows) - failed} of {len(rows)} scans scored" + (f": {decided}" if decided else "")
    summary += f"; {failed} failed (see the column reason)" if failed else ""
    print_line(f"{summary}; {warned} with a warning." if warned else f"{summary}.")
    if predictor.maps is not None:
        print_line(f"Maps and pictures in {predictor.maps.folder}")
    print_line(f"Results in {settings.output}")
