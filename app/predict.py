"""`voxlift-predict`: new volumes through finished runs, one row each, with maps if asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.course.failures import scoring_need, told_in_sentences
from app.door.cli import open_command, reader
from app.door.outputs import output_file_problems
from app.files import write_json
from app.process.statuses import DONE, USER_ERROR
from app.progress import console, progress_bar, say
from app.settings import PredictSettings, SettingsError, choice_problem, count_problem

if TYPE_CHECKING:
    from app.prediction.ensemble import Ensemble
    from app.prediction.explained import Explaining
    from app.prediction.running import Predictor
    from data_pipelines.scans import Scan

EXPLAIN = {False: None, "false": None, "none": None, True: "gradcam", "true": "gradcam"}
METHODS = ("gradcam", "occlusion", "both")
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


def explain_method(settings: PredictSettings) -> Any:  # noqa: ANN401 - what the user gave, where it is none of ours
    """`gradcam`, `occlusion`, `both`, or None for no maps."""
    given = settings.explain
    return EXPLAIN.get(given.lower() if isinstance(given, str) else given, given)


def predict(settings: PredictSettings) -> int:
    """Score every scan, write the table and how it was made, and say what came of it.

    Returns:
        The exit status: 0, or 2 where not one scan could be scored.

    Raises:
        SettingsError, ManifestError: the runs or the input cannot be used at all; nothing is written.
    """
    from app.prediction.ensemble import open_ensemble
    from app.process.logs import logging_to_file

    runs = [str(run) for run in settings.run] if isinstance(settings.run, list) else [str(settings.run)]
    with logging_to_file():
        ensemble = open_ensemble(runs)
        scans = _find_scans(settings, ensemble)
        predictor = _build_predictor(settings, ensemble)
        _say_rules(ensemble, settings)
        with told_in_sentences(scoring_need(predictor.batch_size)):
            rows = _predict_into(Path(settings.output).expanduser(), scans, predictor, settings=settings)
    return _say_outcome(rows, predictor, settings=settings)


def _predict_into(
    output: Path, scans: Sequence[Scan], predictor: Predictor, *, settings: PredictSettings
) -> list[dict[str, Any]]:
    from app.prediction.partial import PartialTable
    from app.prediction.running import scan_key

    ensemble = predictor.ensemble
    table = PartialTable(output, columns=predictor.columns, question=_question(ensemble, settings))
    if table.rows:
        say(f"{len(table.rows)} scans were scored before; going on with the others.")
    try:
        with progress_bar("Predicting", len(scans)) as advance:
            predictor.predict(scans, table, advance=advance)
    except KeyboardInterrupt:
        say(
            f"{len(table.rows)} of {len(scans)} scans are kept; the same command goes on from there.",
        )
        raise
    rows = table.finish([scan_key(scan) for scan in scans])
    write_json(output.with_suffix(".json"), _account(rows, ensemble, settings))
    return rows


def _find_scans(settings: PredictSettings, ensemble: Ensemble) -> tuple[Scan, ...]:
    from app.prediction.ensemble import image_columns
    from data_pipelines.scans import find_scans
    from data_pipelines.tables import read_table

    own = ensemble.members[0].settings
    source = Path(str(settings.input)).expanduser()
    columns = tuple(settings.image_columns) or image_columns(own)
    subject = settings.subject_column
    if subject is None and source.suffix.lower() in {".csv", ".tsv", ".txt"} and source.is_file():
        usual = own.data.subject_column if own.data.name == "manifest" else "participant_id"
        # The run's own subject column is welcome, not demanded: new tables often know only files.
        subject = usual if usual in read_table(source).columns else None
    scans = find_scans(source, image_columns=columns, subject_column=subject, root=settings.root)
    _say_absent(scans, source)
    return scans


def _say_absent(scans: Sequence[Scan], source: Path) -> None:
    """Name the setting that puts a table's paths right, where it lists files that are not there."""
    lost = [scan for scan in scans if not all(path.exists() for path in scan.images)]
    if lost:
        say(
            f"{len(lost)} of the {len(scans)} scans of {source} are not there: relative paths start from "
            f"root=FOLDER, by default the table's own folder."
        )


def _build_predictor(settings: PredictSettings, ensemble: Ensemble) -> Predictor:
    from app.prediction.ensemble import load_networks, member_views
    from app.prediction.running import Predictor

    views = member_views(ensemble, settings.tta)
    explaining = _explaining(settings, ensemble)
    with console.status("Loading the model"):
        networks = load_networks(ensemble)
    if explaining is not None:
        _refuse_unknown_layer(explaining, networks)
        explaining.folder.mkdir(parents=True, exist_ok=True)
    return Predictor(
        ensemble=ensemble,
        networks=networks,
        views=views,
        batch_size=settings.batch_size or ensemble.members[0].settings.trainer.batch_size,
        workers=settings.workers,
        explaining=explaining,
    )


def _explaining(settings: PredictSettings, ensemble: Ensemble) -> Explaining | None:
    from app.prediction.explained import Explaining

    method = explain_method(settings)
    if method is None:
        return None
    named, classes = settings.explain_class, ensemble.classes
    if named is not None and named not in classes:
        raise SettingsError(f"explain_class: expected one of {', '.join(classes)}; received {named}.")
    output = Path(settings.output).expanduser()
    label = None if named is None else classes.index(named)
    return Explaining(output.with_name(f"{output.stem}_maps"), method, settings.explain_layer, label)


def _refuse_unknown_layer(explaining: Explaining, networks: Sequence[Any]) -> None:
    from models.explain import find_layer

    if explaining.method == "occlusion":
        return
    for network in networks:
        try:
            find_layer(network, explaining.layer)
        except ValueError as error:
            raise SettingsError(f"explain_layer: {error}") from error


def _question(ensemble: Ensemble, settings: PredictSettings) -> dict[str, Any]:
    """All that a row depends on, besides its scan."""
    models = [member.run.model for member in ensemble.members]
    return {
        "models": [[str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns] for path in models],
        "tta": settings.tta,
        "explain": [explain_method(settings), settings.explain_class, settings.explain_layer],
    }


def _account(rows: Sequence[dict[str, Any]], ensemble: Ensemble, settings: PredictSettings) -> dict[str, Any]:
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


def _say_rules(ensemble: Ensemble, settings: PredictSettings) -> None:
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


def _say_outcome(rows: Sequence[dict[str, Any]], predictor: Predictor, *, settings: PredictSettings) -> int:
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
    return USER_ERROR if failed == len(rows) else DONE


if __name__ == "__main__":
    main()
