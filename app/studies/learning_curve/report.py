"""Report the study of the learning curve: its table, figures, page and sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from voxlift.app.comparison.trial import Trial, group_by_model
from voxlift.app.config.commands import StudySettings
from voxlift.app.errors import SettingsError
from voxlift.app.evaluation.metric_names import metric_label
from voxlift.app.evaluation.paired import Comparison, compare_models
from voxlift.app.evaluation.paired_tests import holm
from voxlift.app.evaluation.scores import Fits, Floats
from voxlift.app.evaluation.verdict import decide, format_p_value, short_verdict, shown_p_value
from voxlift.app.report.run_page import describe_task
from voxlift.app.report.study_page import StudyFigure, TextTable
from voxlift.app.report.tables import format_interval, format_signed, format_value
from voxlift.app.runs.results import read_scores
from voxlift.app.studies.folder import StudyFolder
from voxlift.app.studies.learning_curve.curves import Crossing, Curve, build_curves, find_crossing
from voxlift.app.studies.learning_curve.figures import draw_curves, draw_difference
from voxlift.app.studies.learning_curve.points import CurveFindings, CurvePoint
from voxlift.app.studies.outputs import StudyResults, describe_fixed, write_study_results
from voxlift.app.studies.trainings import describe_failures, select_finished

LEAST_SIZES = 3  # a power law has three parameters
NOTE_TEST = (
    "Scores are those of the test subjects, which are the same for every number of training subjects; "
    "nothing is selected by them. Validation, which selects the best epoch, is the same for all as well."
)
NOTE_NESTED = (
    "The training subjects of a smaller fraction are among those of a larger one, stratified, and drawn with "
    "the seed. A seed also decides the split, the initial weights and the order of the batches."
)
NOTE_EQUAL = {
    "steps": "Every training has as many steps of the optimiser as that on all subjects: more epochs.",
    "epochs": "Every training has as many epochs as that on all subjects, and so fewer steps on fewer.",
}
NOTE_BAND = (
    "Bands are 95 %: the power law is fitted again in each resample of the test subjects, with the variance "
    "between seeds added. They take for granted that a power law holds, also beyond the subjects there are, "
    "and that more subjects are never worse: a gain is not below 0."
)
NOTE_ONE_SEED = "With one seed the variance between trainings is not known, and the bands leave it out."


def report_learning_curve(settings: StudySettings, folder: StudyFolder, found: CurveFindings) -> None:
    """Write all files of the study and print its sentences.

    Raises:
        SettingsError: Fewer than three sizes have all their trainings.
    """
    study, trials = settings.study, select_finished(found.outcomes)
    points = select_complete(found, trials)
    fit_seeds = [trial.seed for trial in points[0][1]]
    fits: dict[tuple[str, int], Fits] = {
        (point.model, point.subjects): [read_scores(trial.run, split="test") for trial in own]
        for point, own in points
    }
    metric = next(iter(fits.values()))[0].primary
    curves = build_curves(fits, metric=metric, fit_seeds=fit_seeds, resamples=int(study.resamples))
    pairs = compare_sizes(fits, fit_seeds=fit_seeds, metric=metric, margin=settings.verdict.margin)
    crossing = find_crossing(*curves.values())
    rows = [_build_row(point, curves[point.model]) for point, _ in points]
    fractions = sorted({point.fraction for point, _ in points})
    results = StudyResults(
        name=f"Learning curves of {' and '.join(curves)} on {describe_task(settings.data)}",
        recommendation=f"{describe_twice(curves, metric=metric)} {describe_crossing(crossing, curves)}",
        findings=[
            *(describe_law(curve) for curve in curves.values()),
            *(f"With {size} training subjects: {_describe_pair(pair)}." for size, pair in pairs.items()),
            *describe_failures(found.outcomes),
        ],
        varied=[
            (
                "splits.train_fraction",
                ", ".join(f"{part:g}" for part in fractions),
            ),
            ("model", ", ".join(study.models)),
            ("seed", ", ".join(map(str, study.seeds))),
        ],
        fixed=describe_fixed(found.base, varied=["model", "trainer.epochs"]),
        rows=rows,
        more={"differences": [_build_difference_row(size, pair) for size, pair in pairs.items()]},
        values=build_values(curves, crossing, metric=metric),
        drawings=build_figures(curves, pairs, metric=metric),
        tables=[_build_score_table(rows, metric), _build_difference_table(pairs)],
        notes=[NOTE_TEST, NOTE_NESTED, NOTE_EQUAL[study.equal], NOTE_BAND]
        + ([NOTE_ONE_SEED] if len(study.seeds) == 1 else []),
    )
    write_study_results(results, folder, trials=trials)


def select_complete(found: CurveFindings, trials: Sequence[Trial]) -> list[tuple[CurvePoint, list[Trial]]]:
    """Return the points of those sizes that both models have finished with every seed, with their trainings.

    Raises:
        SettingsError: These are fewer than three sizes.
    """
    by_label = group_by_model(trials)
    asked = Counter(outcome.trial.model for outcome in found.outcomes)
    complete = [one for one in found.points if len(by_label.get(one.label, [])) == asked[one.label]]
    models = {point.model for point in found.points}
    shared = [
        point
        for point in complete
        if {one.model for one in complete if one.fraction == point.fraction} == models
    ]
    if len({point.subjects for point in shared}) < LEAST_SIZES:
        failures = describe_failures(found.outcomes)
        raise SettingsError(
            "A learning curve needs three numbers of training subjects that both models finished with every "
            f"seed. {' '.join(failures) or 'Choose other study.fractions: some keep the same subjects.'}"
        )
    unique = {(point.model, point.subjects): point for point in shared}  # of equal sizes the last
    return [(point, by_label[point.label]) for point in unique.values()]


def compare_sizes(
    fits: Mapping[tuple[str, int], Fits], *, fit_seeds: Sequence[int], metric: str, margin: float | None
) -> dict[int, Comparison]:
    """Return the paired comparison of both models by number of training subjects, adjusted over these.

    Args:
        fits: Model and number of training subjects to its test scores, one per seed.
        fit_seeds: Seed of each fit.
        metric: Key of the primary metric.
        margin: Smallest difference that matters; None: see `compare_models`.
    """
    first, second = dict.fromkeys(model for model, _ in fits)
    sizes = sorted({size for _, size in fits})
    found: list[Comparison] = []
    for size in sizes:
        models = {name: fits[name, size] for name in (first, second)}
        found += compare_models(models, fit_seeds=fit_seeds, primary=metric, margin=margin)
    adjusted = {
        "bootstrap": holm([one.differences[metric].p_value for one in found]),
        "equivalence": holm([one.differences[metric].equivalence_p for one in found]),
    }
    return {
        size: replace(one, pairs=len(sizes), adjusted={name: own[i] for name, own in adjusted.items()})
        for i, (size, one) in enumerate(zip(sizes, found, strict=True))
    }


def describe_twice(curves: Mapping[str, Curve], *, metric: str) -> str:
    """Return what twice the training subjects would bring to each model."""
    parts = []
    for curve in curves.values():
        low, high = _interval(curve.gains)
        gain = float(curve.law.predict(2 * curve.subjects[-1]) - curve.law.predict(curve.subjects[-1]))
        parts.append(f"{curve.model} {format_signed(gain)} {format_interval(low, high)}")
    size = next(iter(curves.values())).subjects[-1]
    return (
        f"Twice the {size:.0f} training subjects would change {metric_label(metric)} by: {', '.join(parts)} "
        "(95 % intervals)."
    )


def describe_crossing(found: Crossing, curves: Mapping[str, Curve]) -> str:
    """Return where the curves cross, or which is above, or that it cannot be told."""
    first, second = curves
    sizes = next(iter(curves.values())).grid
    reach = f"from {sizes[0]:.0f} to {sizes[-1]:.0f} training subjects"
    if found.kind in ("above", "below"):
        return f"{second} scores {'better' if found.kind == 'above' else 'worse'} than {first} {reach}."
    if found.kind == "cross":
        return (
            f"The curves cross at about {found.at:.0f} training subjects (95 % interval {found.low:.0f} to "
            f"{found.high:.0f})."
        )
    return (
        f"Where the curves of {first} and {second} cross {reach}, if they do, cannot be told: they cross in "
        f"{100 * found.share:.0f} % of the resamples."
    )


def describe_law(curve: Curve) -> str:
    """Return the power law of a model as a sentence."""
    law = curve.law
    values = law.predict(curve.subjects)
    if np.ptp(values) < 0.0005 * np.abs(values).max():
        return f"{curve.model}: no gain from more training subjects is seen in these points."
    return (
        f"{curve.model}: {format_value(float(law.predict(law.size)))} with {law.size:.0f} training subjects "
        f"on the fitted curve; its limit is {format_value(law.limit)}, and the distance from it falls with "
        f"the subjects to the power of {format_signed(-law.exponent)}."
    )


def _describe_pair(pair: Comparison) -> str:
    one = pair.differences[pair.primary]
    interval = format_interval(one.low, one.high)
    return (
        f"{pair.second} \N{MINUS SIGN} {pair.first} {format_signed(one.difference)} {interval}, "
        f"p {format_p_value(shown_p_value(pair))}, {short_verdict(pair)}"
    )


def _interval(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def build_values(curves: Mapping[str, Curve], crossing: Crossing, *, metric: str) -> dict[str, Any]:
    """Return the further values of `results.json`: laws, what twice the subjects bring, and the crossing."""
    laws = {}
    for name, curve in curves.items():
        law, twice = curve.law, 2 * curve.subjects[-1]
        predicted = float(law.predict(twice))
        laws[name] = {
            "limit": law.limit,
            "distance": law.distance,
            "exponent": law.exponent,
            "subjects": int(law.size),
            "twice": {
                "score": predicted,
                "score_interval": list(_interval(curve.band[:, -1])),
                "gain": predicted - float(law.predict(law.size)),
                "gain_interval": list(_interval(curve.gains)),
            },
        }
    found = {"kind": crossing.kind, "share": crossing.share, "at": crossing.at}
    return {"metric": metric, "laws": laws, "crossing": found | {"interval": [crossing.low, crossing.high]}}


def build_figures(
    curves: Mapping[str, Curve], pairs: Mapping[int, Comparison], *, metric: str
) -> list[StudyFigure]:
    """Return the figures of the curves and of their difference."""
    label, margin = metric_label(metric), next(iter(pairs.values())).margin
    return [
        StudyFigure(
            "curves",
            f"{label} over the training subjects: points with 95 % intervals, short bars for single seeds, "
            "and a power law with its 95 % band; right of the dashed line it is extrapolated.",
            draw_curves(curves, metric=metric),
        ),
        StudyFigure(
            "difference",
            f"Paired difference of {label} at each size, and difference of the curves with its 95 % band; "
            f"shaded: below the margin of {margin:g}.",
            draw_difference(curves, pairs, metric=metric, margin=margin),
        ),
    ]


def _build_row(point: CurvePoint, curve: Curve) -> dict[str, Any]:
    """Return a point's row of `table.csv`."""
    at = int(np.flatnonzero(curve.subjects == point.subjects)[0])
    low, high = curve.intervals[:, at]
    seeds = curve.by_seed[at]
    return {
        "model": point.model,
        "fraction": point.fraction,
        "subjects": point.subjects,
        "epochs": point.epochs,
        "seeds": len(seeds),
        "score": float(curve.scores[at]),
        "low": float(low),
        "high": float(high),
        "sd_over_seeds": float(seeds.std(ddof=1)) if len(seeds) > 1 else None,
        "curve": float(curve.law.predict(point.subjects)),
    }


def _build_difference_row(size: int, pair: Comparison) -> dict[str, Any]:
    """Return a row of `differences.csv`."""
    one = pair.differences[pair.primary]
    return {
        "subjects": size,
        "first": pair.first,
        "second": pair.second,
        "difference": one.difference,
        "low": one.low,
        "high": one.high,
        "p": pair.adjusted["bootstrap"],
        **asdict(decide(pair)),
    }


def _build_score_table(rows: Sequence[Mapping[str, Any]], metric: str) -> TextTable:
    texts = [
        [
            row["model"],
            str(row["subjects"]),
            f"{row['fraction']:g}",
            str(row["epochs"]),
            format_value(row["score"]),
            format_interval(row["low"], row["high"]),
            format_value(row["sd_over_seeds"]),
            format_value(row["curve"]),
        ]
        for row in rows
    ]
    counts, score = ("training subjects", "fraction", "epochs"), metric_label(metric)
    headings = ("Model", *counts, score, "95 %", "SD over seeds", "curve")
    return TextTable("Scores on the test subjects, means over seeds.", headings, texts)


def _build_difference_table(pairs: Mapping[int, Comparison]) -> TextTable:
    texts = []
    for size, pair in pairs.items():
        one = pair.differences[pair.primary]
        interval, p = format_interval(one.low, one.high), format_p_value(shown_p_value(pair))
        texts.append([str(size), format_signed(one.difference), interval, p, short_verdict(pair)])
    first = next(iter(pairs.values()))
    caption = (
        f"{first.second} \N{MINUS SIGN} {first.first} on the same subjects and seeds; p adjusted over sizes."
    )
    return TextTable(caption, ("Training subjects", "difference", "95 %", "p (Holm)", "verdict"), texts)
