"""What a paper reports of a run, as sentences by topic, from the files of its folder and their figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from voxlift.app.config import SPLIT_NAMES, TrainSettings
from voxlift.app.evaluation.bootstrap import RESAMPLES
from voxlift.app.evaluation.calibration import Calibration
from voxlift.app.evaluation.metric_names import (
    headline_metrics,
    interval_of,
    is_lower_better,
    metric_label,
)
from voxlift.app.evaluation.scores import Scores
from voxlift.app.files import read_json, read_rows
from voxlift.app.report.evidence import label_of_use
from voxlift.app.report.tables import (
    format_interval,
    format_quantity,
    format_signed,
    format_value,
)
from voxlift.app.runs.configuration import describe_extensions
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.results import find_best_epoch, scores_from_rows
from voxlift.app.tasks.base import task_of

SPLIT_TITLES = {"train": "training", "val": "validation", "test": "test", "calibration": "calibration"}
INTENSITIES = {
    "window_hu": "intensities were limited to {} and scaled to 0..1",
    "clip_percentiles": "intensities were limited to the percentiles {}",
}
MOST_ERRORS = 5  # subjects that are named as failures


@dataclass(frozen=True)
class RunFacts:
    """The files of a run that is scored.

    Attributes:
        run: Its folder.
        settings: Of the run.
        metrics: Content of metrics.json.
        external: Content of the metrics.json of an evaluation of this run on external data; empty: none.
        planned: Content of the results.json of a study of the sample size; empty: none.
    """

    run: RunFolder
    settings: TrainSettings
    metrics: Mapping[str, Any]
    external: Mapping[str, Any] = field(default_factory=dict)
    planned: Mapping[str, Any] = field(default_factory=dict)

    @property
    def split(self) -> str:
        """The split of the results: test where there is one."""
        return "test" if "test" in self.metrics else "val"


def describe_flow(facts: RunFacts) -> str:
    """Return how many rows were read, left out and used."""
    if not facts.run.flow.exists():
        return ""
    rows = read_rows(facts.run.flow)
    read = next((row["rows"] for row in rows if row["step"] == "read"), "")
    left = [f"{row['rows']} ({row['reason']})" for row in rows if row["step"] == "left out"]
    used = next((row for row in rows if row["step"] == "used" and not row["reason"]), None)
    if used is None:
        return ""
    without = f"{', '.join(left)} were left out" if left else "none was left out"
    return f"Of {read} rows, {without}; {used['rows']} volumes of {used['subjects']} subjects were used."


def describe_splits(facts: RunFacts) -> str:
    """Return how subjects were assigned, and how many volumes of each label are in each split."""
    settings, choice = facts.settings, facts.settings.splits
    task = task_of(settings)
    names = task.names(settings.data)
    rows = read_rows(facts.run.splits)
    parts = []
    for split in dict.fromkeys([*SPLIT_NAMES, *(row["split"] for row in rows)]):
        own = [row for row in rows if row["split"] == split]
        if own:
            subjects = len({row["subject"] for row in own})
            counts = Counter(group for row in own for group in task.groups_of(row, names))
            groups = ", ".join(f"{count} {name}" for name, count in counts.items())
            volumes = "" if len(own) == subjects else f" with {len(own)} volumes"  # which the groups count
            parts.append(f"{SPLIT_TITLES.get(split, split)} {subjects}{volumes} ({groups})")
    how = (
        "as the table says" if settings.data.split_column else f"at random, stratified (seed {settings.seed})"
    )
    if choice.leave_out:
        how = f"by {choice.leave_out}, one of whose values is the test (fold {choice.fold})"
    elif choice.by:
        how = f"{how}, with all subjects of one {choice.by} in one split"
    if choice.folds and not settings.data.split_column:
        how = f"{how}, as fold {choice.fold + 1} of {choice.folds}"
    return f"Subjects were assigned {how}: {'; '.join(parts)}."


def describe_disjoint(facts: RunFacts) -> str:
    """Return at which level the splits are disjoint, counted in splits.csv."""
    splits_of: dict[str, set[str]] = {}
    for row in read_rows(facts.run.splits):
        splits_of.setdefault(row["subject"], set()).add(row["split"])
    shared = sum(len(own) > 1 for own in splits_of.values())
    checked = "equal voxels in two splits were refused"
    return f"Splits are by subject: {shared} of {len(splits_of)} subjects are in two splits; {checked}."


def describe_preprocess(facts: RunFacts) -> str:
    """Return orientation, grid and intensities."""
    chosen = facts.settings.preprocess
    steps = [f"reoriented to {chosen.axcodes}" if chosen.axcodes else "kept in their stored orientation"]
    if chosen.spacing == "native":
        steps.append("kept at their own spacing")
    else:
        steps.append(
            f"resampled to {_sides(chosen.spacing)} mm (depth, height, width; {chosen.interpolation})"
        )
    if chosen.foreground_crop:
        steps.append(f"cropped to the foreground with a margin of {chosen.foreground_margin_mm:g} mm")
    if facts.settings.data.mask_column or facts.settings.data.centre_columns:
        steps.append("used with the mask or centre of each row")
    if chosen.shape is not None:
        how = "resized" if chosen.fit == "resize" else "padded or cropped"
        steps.append(f"{how} to {_sides(chosen.shape)} voxels")
    values = [
        text.format(" to ".join(f"{end:g}" for end in getattr(chosen, name)))
        for name, text in INTENSITIES.items()
        if getattr(chosen, name) is not None
    ]
    if chosen.zscore != "none":
        values.append(f"intensities were standardised ({chosen.zscore})")
    return f"Images were {', '.join(steps)}{''.join(f'; {one}' for one in values)}."


def _sides(values: Sequence[float]) -> str:
    return " \N{MULTIPLICATION SIGN} ".join(f"{value:g}" for value in values)


def describe_model(facts: RunFacts) -> str:
    """Return the kind of model, what it was made from, and its size."""
    model = facts.settings.model
    builder = model.builder or {}
    network = f"the 2D network {builder.get('_target_', model.baseline)}"
    kinds = {
        "slice": f"{network}, which scored slices along {model.axis}; its scores were combined by "
        f"{model.aggregate}",
        "volume": f"{network}, lifted to 3D ({_weights_of_lift(facts)})",
        "linear": "a linear model with an L2 penalty on the voxels",
        "embedding": "a linear model with an L2 penalty on vectors of another network",
        "table": f"a regression on the columns {', '.join(model.columns)}, without images",
    }
    cost = facts.metrics.get("cost", {})
    size = f" It has {format_quantity(cost['parameters'])} parameters." if cost.get("parameters") else ""
    return f"The model ({model.name}) was {kinds.get(model.kind, model.kind)}.{size}"


def _weights_of_lift(facts: RunFacts) -> str:
    model = facts.settings.model
    if model.pretrain:
        return f"first trained on slices, then inflated with init={model.init}"
    return f"depth policy {model.depth_policy}, init={model.init}"


def describe_start(facts: RunFacts) -> str:
    """Return what the weights start from."""
    model = facts.settings.model
    if not model.has_network:
        return ""
    if model.weights:
        return f"Weights of the 2D network: {model.weights}."
    if model.pretrain or model.baseline not in {"cnn", "resnet", "tutorial"}:
        return f"The 2D network was {model.baseline}; lifted kernels: init={model.init}."
    return f"All weights started at random (seed {facts.settings.seed})."


def describe_training(facts: RunFacts) -> str:
    """Return optimizer, epochs, batches, loss and augmentation."""
    settings, trainer, optimizer = facts.settings, facts.settings.trainer, facts.settings.optimizer
    if not settings.model.has_network:
        return "It was fitted at once, without epochs; its penalty was selected on validation."
    augment = str(settings.augment.get("name", "none"))
    stop = f", early stopping after {trainer.patience} epochs" if trainer.patience else ""
    text = (
        f"It was trained for {trainer.epochs} epochs with {optimizer.name} (learning rate "
        f"{optimizer.learning_rate:g}, weight decay {optimizer.weight_decay:g}, schedule "
        f"{optimizer.schedule}), {trainer.batch_size} volumes per batch, loss {trainer.loss}, class balance "
        f"{trainer.balance}, dropout {settings.model.dropout:g}, augmentation {augment}{stop}."
    )
    return " ".join([text, *describe_extensions(facts.run)])


def describe_selection(facts: RunFacts) -> str:
    """Return how the final weights and the decision threshold were selected."""
    epoch = find_best_epoch(facts.metrics.get("cost", {}))
    text = ""
    if epoch is not None:
        monitor = metric_label(facts.settings.trainer.monitor)
        text = (
            f"The weights of epoch {epoch} (the first is 1) were kept, the best by {monitor} on validation."
        )
    threshold = facts.metrics.get("threshold")
    if threshold is not None:
        text += f" The decision threshold {threshold:.3f} was {facts.metrics['threshold_reason']}."
    return text.strip()


def describe_software(facts: RunFacts) -> str:
    """Return the versions of the software, the device and the precision."""
    found = read_json(facts.run.environment)
    packages = found.get("packages", {})
    versions = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
    return (
        f"Software: Voxlift {found.get('voxlift', '')} on Python {found.get('python', '')} ({versions}); "
        f"device: {found.get('device', '')}; precision {found.get('precision', '')}."
    )


def describe_uncertainty(facts: RunFacts) -> str:
    """Return how intervals were made."""
    strata = ", stratified by class" if task_of(facts.settings).is_nominal else ""
    return (
        f"Intervals are 95 % percentile intervals of {RESAMPLES} bootstrap resamples of subjects{strata}; "
        "all volumes of a subject are drawn together."
    )


def describe_results(facts: RunFacts, *, names: Sequence[str] | None = None) -> str:
    """Return metrics of the test split with their intervals.

    Args:
        facts: The run.
        names: Of the metrics; None for all but those of each class.
    """
    block = facts.metrics[facts.split]
    chosen = [name for name in (names or headline_metrics(block)) if isinstance(block.get(name), float)]
    texts = [_with_interval(block, name, facts.settings.task.unit) for name in chosen]
    where = SPLIT_TITLES[facts.split]
    return f"On the {block['subjects']} {where} subjects ({block['n']} volumes): {'; '.join(texts)}."


def _with_interval(block: Mapping[str, Any], name: str, unit: str = "", *, label: str = "") -> str:
    pair = interval_of(block, name)
    ends = f" (95 % interval {format_value(pair[0])} to {format_value(pair[1])})" if pair else ""
    return f"{label or metric_label(name, unit)} {format_value(block[name])}{ends}"


def describe_calibration(facts: RunFacts) -> str:
    """Return the temperature and bias, and the calibration errors with and without it."""
    found = facts.metrics.get("calibration")
    if not found or facts.split not in found:
        return ""
    before, after = found[facts.split]["before"], found[facts.split]["after"]
    changes = ", ".join(
        f"{metric_label(name)} {format_value(before[name])} before and {format_value(after[name])} after"
        for name in ("brier", "ece")
    )
    fitted = Calibration.from_json(found).describe(facts.settings.data.classes)
    return f"Temperature scaling (fitted on validation: {fitted}): {changes}."


def describe_use(facts: RunFacts) -> str:
    """Return calibration slope and intercept, likelihood ratios and predictive values."""
    use = facts.metrics.get("use")
    if not use:
        return ""
    names = ("calibration_intercept", "calibration_slope", "lr_positive", "lr_negative", "ppv_use", "npv_use")
    texts = [_with_interval(use, name, label=label_of_use(name)) for name in names if use[name] is not None]
    return f"At a prevalence of {100 * use['prevalence']:.3g} %: {'; '.join(texts)}."


def describe_sets(facts: RunFacts) -> str:
    """Return the coverage of prediction sets."""
    found = facts.metrics.get("prediction_sets", {})
    block = found.get(facts.split)
    if not block or block["coverage"] is None:
        return ""
    low, high = block["interval"]
    return (
        f"Class-wise split-conformal prediction sets, calibrated on {found['subjects']} further subjects, "
        f"held the true label of {100 * block['coverage']:.1f} % of the {SPLIT_TITLES[facts.split]} volumes "
        f"(95 % interval {100 * low:.1f} to {100 * high:.1f}; promised {100 * found['coverage']:g} %)."
    )


def describe_subgroups(facts: RunFacts) -> str:
    """Return the groups that were scored apart, with the first metric of each."""
    texts = []
    for request, found in facts.metrics.get("subgroups", {}).items():
        groups = []
        for one in found["groups"]:
            intervals = [name for name in one.get("intervals", {}) if isinstance(one.get(name), float)]
            value = "too small" if one["too_small"] or not intervals else _with_interval(one, intervals[0])
            groups.append(f"{one['group']} (n = {one['n']}): {value}")
        texts.append(f"By {request}: {'; '.join(groups)}.")
    return " ".join(texts)


def describe_external(facts: RunFacts) -> str:
    """Return the score on external data beside that of the internal test, and how leaks were excluded."""
    if not facts.external:
        return ""
    score = external_verdict(
        facts.external,
        name=facts.settings.model.name,
        metric=task_of(facts.settings).primary,
        unit=facts.settings.task.unit,
    )
    return " ".join([score, *facts.external.get("compared", [])[:1]])


def describe_planned_size(facts: RunFacts) -> str:
    """Return what a study of the sample size found and assumed, beside the subjects there are."""
    if not facts.planned:
        return ""
    assumed = ", ".join(f"{name} {value}" for name, value in facts.planned.get("fixed", {}).items())
    subjects = facts.metrics[facts.split]["subjects"]
    return (
        f"{facts.planned['recommendation']} Assumed: {assumed}. This run was scored on {subjects} subjects. "
        "State whether this was computed before the data were seen."
    )


def describe_failures(facts: RunFacts) -> str:
    """Return how many decisions of classes are wrong, and the subjects of the most confident ones."""
    task = task_of(facts.settings)
    page = "report.html shows cases with their images"
    if not task.is_nominal or not facts.run.predictions.exists():
        return f"{page[0].upper()}{page[1:]}."
    names = task.names(facts.settings.data)
    rows = read_rows(facts.run.predictions)
    scores: Scores = task.decide(scores_from_rows(rows, names, split=facts.split, task=task), facts.metrics)
    wrong = [row for row in range(len(scores)) if scores.decisions[row] != scores.labels[row]]
    wrong.sort(key=lambda row: -float(scores.probabilities[row].max()))
    kinds = Counter((names[scores.labels[row]], names[scores.decisions[row]]) for row in wrong)
    counts = ", ".join(f"{count} {true} as {decided}" for (true, decided), count in kinds.items())
    text = f"{len(wrong)} of {len(scores)} volumes were decided wrongly{f' ({counts})' if counts else ''}"
    named = ", ".join(dict.fromkeys(scores.subjects[row] for row in wrong[:MOST_ERRORS]))
    return f"{text}; {page}{f', most confident errors: {named}' if named else ''}."


METHODS: tuple[Callable[[RunFacts], str], ...] = (
    describe_flow,
    describe_splits,
    describe_disjoint,
    describe_preprocess,
    describe_model,
    describe_start,
    describe_training,
    describe_selection,
    describe_uncertainty,
    describe_results,
    describe_external,
    describe_calibration,
    describe_use,
    describe_sets,
    describe_subgroups,
    describe_software,
)


def write_methods(facts: RunFacts) -> str:
    """Return the methods paragraph, with all its figures."""
    return " ".join(text for describe in METHODS if (text := describe(facts)))


def external_verdict(metrics: Mapping[str, Any], *, name: str, metric: str = "auc", unit: str = "") -> str:
    """Return the sentences above the page on external data.

    Args:
        metrics: Content of metrics.json.
        name: Of the model.
        metric: Of the verdict.
        unit: Of a predicted number.
    """
    block, difference = metrics["external"], metrics.get("difference", {}).get(metric)
    low, high = interval_of(block, metric) or (None, None)
    value = f"{format_value(block.get(metric))} {format_interval(low, high)}"
    sentences = [f"{name}: {metric_label(metric, unit)} {value} on {block['subjects']} external subjects."]
    if difference and difference["low"] is not None:
        interval = format_interval(difference["low"], difference["high"])
        gap = f"{format_signed(difference['difference'])} {interval}"
        if difference["low"] <= 0 <= difference["high"]:
            sentences.append(f"No difference from its own test subjects is shown: {gap}.")
        else:
            is_lower = difference["high"] < 0
            word = "better" if is_lower == is_lower_better(metric) else "worse"
            way = "lower" if is_lower else "higher"
            sentences.append(f"That is {way}, so {word}, than on its own test subjects: {gap}.")
    if metrics["training_range"]["outside"]:
        sentences.append(describe_range(metrics["training_range"]))
    return " ".join(sentences)


def describe_range(known: Mapping[str, Any]) -> str:
    """Return how many scans lie outside the training range, and in what, in one sentence."""
    kinds: dict[str, int] = {}
    for reason, count in known.get("reasons", {}).items():  # along the axes together
        kind = reason.partition(" along ")[0]
        kinds[kind] = max(kinds.get(kind, 0), count)
    reasons = ", ".join(f"{kind} ({count})" for kind, count in kinds.items())
    share = f"{known['outside']} of {known['volumes']} scans lie outside the range of the training scans"
    return f"{share}{f': {reasons}' if reasons else ''}."
