"""The contestants of the study of shortcuts: what each is scored by, on the test subjects of every seed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import TrainSettings
from voxlift.app.data.cohort import Cohort
from voxlift.app.evaluation.scores import Scores
from voxlift.app.external.score import score_run
from voxlift.app.inference.scores import build_split_scores
from voxlift.app.runs.folder import RunFolder
from voxlift.app.studies.shortcuts.features import FileFacts, VoxelFacts, build_header, standardise
from voxlift.app.training.linear_head import fit_linear_head
from voxlift.app.training.without_network import Vectors
from voxlift.data_pipelines.tables.manifest import Record

FITTED = ("header", "histogram", "border", "background", "silhouette", "blurred")
RESCORED = ("shuffled_slices", "mirrored")
WITHOUT_VOXELS = ("embedding", "table")  # kinds of models that read no prepared volume
TREES = 200
LEAST_AT_SITE = 2  # training subjects

Voxels = NDArray[np.generic]
Change = Callable[[Voxels, int], Voxels]  # of a volume [D, H, W, C], with a seed


@dataclass(frozen=True, eq=False)
class SeedRun:
    """The finished training of one seed.

    Attributes:
        seed: Of the training.
        run: Its folder.
        settings: Its settings.
        cohort: Its subjects, with all splits.
        scores: Of the model, on the test subjects.
    """

    seed: int
    run: RunFolder
    settings: TrainSettings
    cohort: Cohort
    scores: Scores


@dataclass(frozen=True, eq=False)
class Contestant:
    """What a contestant scores.

    Attributes:
        name: One of `CONTESTANTS`.
        fits: Scores of the test subjects; empty where it was left out.
        seeds: Of each of the fits: those of one seed are averaged.
        reason: Why it was left out.
    """

    name: str
    fits: Sequence[Scores] = ()
    seeds: Sequence[int] = ()
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Facts:
    """The facts of all records, by their items."""

    files: Mapping[str, FileFacts]
    voxels: Mapping[str, VoxelFacts]

    def features(self, name: str, records: Sequence[Record]) -> NDArray[np.float64] | None:
        """Return the features [N, F] of a fitted contestant; None where a volume has no background."""
        files = [self.files[record.item] for record in records]
        voxels = [self.voxels[record.item] for record in records]
        if name == "header":
            return standardise(build_header(files))
        if name == "histogram":
            return standardise(np.stack([one.histogram for one in files]))
        if name == "background":
            found = [one.background for one in voxels if one.background is not None]
            return np.stack(found) if len(found) == len(voxels) else None
        return np.stack([getattr(one, name) for one in voxels])

    def joined(self, names: Sequence[str], records: Sequence[Record]) -> NDArray[np.float64]:
        """Return the features of several contestants side by side, without those that are left out."""
        found = (self.features(name, records) for name in names)
        return np.concatenate([standardise(one) for one in found if one is not None], axis=1)

    def count_without_background(self) -> int:
        """Return the number of volumes without a background."""
        return sum(one.background is None for one in self.voxels.values())


def score_features(features: NDArray[np.float64], cohort: Cohort) -> Scores:
    """Return the test scores of the better of two small models on validation.

    They are the logistic regression of `model=linear`, for what is spread over many features, and a random
    forest, for a mark in few of them, and for what is not linear.
    """
    linear = cohort.task.predict_linear(fit_linear_head(Vectors(features), cohort, balance=True).logits)
    best = max((linear, fit_forest(features, cohort)), key=lambda one: rate_on_validation(one, cohort))
    scores: Scores = build_split_scores(cohort, "test", best[cohort.indices("test")])
    return scores


def rate_on_validation(probabilities: NDArray[np.float64], cohort: Cohort) -> tuple[float, float]:
    """Return the AUC on validation, and minus the loss for a tie, of probabilities [N, K] of all volumes."""
    scores = build_split_scores(cohort, "val", probabilities[cohort.indices("val")])
    metrics = cohort.task.validation_metrics(scores, cohort.head())
    return float(np.nan_to_num(metrics[cohort.task.monitors[0]], nan=-np.inf)), -metrics["loss"]


def fit_forest(features: NDArray[np.float64], cohort: Cohort) -> NDArray[np.float64]:
    """Return the probabilities [N, K] of all volumes by a random forest of the training volumes.

    Source:
        Breiman 2001, doi:10.1023/A:1010933404324; shares of trees by Laplace's rule, so that none is 0.
    """
    from sklearn.ensemble import RandomForestClassifier

    train, count = cohort.indices("train"), len(cohort.classes)
    forest = RandomForestClassifier(TREES, class_weight="balanced", random_state=0)
    forest.fit(features[train], cohort.labels("train"))
    shares = np.zeros((len(features), count))
    shares[:, forest.classes_] = forest.predict_proba(features)
    return np.asarray((TREES * shares + 1) / (TREES + count))


def fit_contestant(name: str, facts: Facts, runs: Sequence[SeedRun]) -> Contestant:
    """Return a contestant that is fitted to the training subjects of each seed."""
    without = facts.count_without_background()
    if name == "background" and without:
        return Contestant(name, reason=f"{without} of {len(facts.voxels)} volumes have no background")
    if name == "border" and not next(iter(facts.voxels.values())).border.size:
        return Contestant(name, reason="every side of the volume is too short to have a border")
    fits = []
    for one in runs:
        features = facts.features(name, one.cohort.records)
        assert features is not None  # noqa: S101 - for the type checker: every volume has a background
        fits.append(score_features(features, one.cohort))
    return Contestant(name, fits, [one.seed for one in runs])


def fit_shuffled_labels(facts: Facts, runs: Sequence[SeedRun], *, permutations: int) -> Contestant:
    """Return the contestant of all features, fitted to labels shuffled within training and validation.

    Every permutation counts as a seed, so that the variance between permutations is in the interval.
    """
    fits, keys = [], []
    for one in runs:
        features = facts.joined(FITTED, one.cohort.records)
        for number in range(permutations):
            keys.append((one.seed, number))  # the same in all folds
            labels = shuffle_labels(one.cohort, np.random.default_rng(keys[-1]))
            fits.append(score_features(features, labels))
    order = list(dict.fromkeys(keys))
    return Contestant("shuffled_labels", fits, [order.index(key) for key in keys])


def shuffle_labels(cohort: Cohort, rng: np.random.Generator) -> Cohort:
    """Return the cohort with the labels of training and of validation shuffled, by subject."""
    records = list(cohort.records)
    for split in ("train", "val"):
        own = cohort.indices(split)
        label_of = {records[i].subject: records[i].label for i in own}
        labels = list(label_of.values())
        order = rng.permutation(len(labels))
        shuffled = dict(zip(label_of, (labels[i] for i in order), strict=True))
        for i in own:
            records[i] = replace(records[i], label=shuffled[records[i].subject])
    return replace(cohort, records=tuple(records))


def fit_site(
    facts: Facts, runs: Sequence[SeedRun], sites: Mapping[str, str], *, reason: str = ""
) -> Contestant:
    """Return the contestant that predicts the site from the parts of prepared volumes.

    Args:
        facts: Of all records.
        runs: Of each seed.
        sites: By item of the record; without those that are not known.
        reason: Why there is no column of sites.
    """
    if not sites:
        return Contestant("site", reason=reason)
    shared = set.intersection(*(set(target_sites(one.cohort, sites).classes) for one in runs))
    if len(shared) < 2:
        return Contestant("site", reason="fewer than two sites have subjects in every split of every seed")
    kept = {item: site for item, site in sites.items() if site in shared}
    cohorts = [target_sites(one.cohort, kept) for one in runs]
    fits = [score_features(facts.joined(FITTED[2:], cohort.records), cohort) for cohort in cohorts]
    return Contestant("site", fits, [one.seed for one in runs])


def target_sites(cohort: Cohort, sites: Mapping[str, str]) -> Cohort:
    """Return a cohort whose classes are the sites that have subjects in every split, without the others."""
    subjects: dict[tuple[str, str], set[str]] = {}
    for record, split in zip(cohort.records, cohort.splits, strict=True):
        if record.item in sites:
            subjects.setdefault((sites[record.item], split), set()).add(record.subject)
    counts = {key: len(own) for key, own in subjects.items()}
    names = tuple(
        site
        for site in sorted({site for site, _ in counts})
        if counts.get((site, "train"), 0) >= LEAST_AT_SITE
        and all((site, split) in counts for split in cohort.present)
    )
    kept = [i for i, record in enumerate(cohort.records) if sites.get(record.item) in names]
    return replace(
        _select(cohort, kept),
        records=tuple(
            replace(cohort.records[i], label=names.index(sites[cohort.records[i].item])) for i in kept
        ),
        classes=names,
    )


def rescore_contestant(name: str, runs: Sequence[SeedRun], folder: Path) -> Contestant:
    """Return a contestant that is the trained model on changed test volumes.

    Args:
        name: `shuffled_slices` or `mirrored`.
        runs: Of each seed.
        folder: The changed volumes are in it for as long as they are scored.
    """
    first = runs[0]
    if first.settings.model.kind in WITHOUT_VOXELS:
        return Contestant(name, reason=f"model={first.settings.model.name} reads no voxels")
    change: Change = shuffle_slices
    if name == "mirrored":
        axis = find_left_right(first.cohort.preprocess.axcodes)
        if axis is None:
            return Contestant(name, reason="preprocess.axcodes=null: no axis is known to be left-right")

        def change(volume: Voxels, seed: int) -> Voxels:  # noqa: ARG001 - as shuffle_slices
            return np.flip(volume, axis)

    fits = [rescore(one, change, folder) for one in runs]
    return Contestant(name, fits, [one.seed for one in runs])


def rescore(one: SeedRun, change: Change, folder: Path) -> Scores:
    """Return the scores of a trained model for its test volumes, each changed.

    Args:
        one: The training.
        change: Of each test volume, by its number.
        folder: The changed volumes are in it for as long as they are scored.
    """
    test = _select(one.cohort, one.cohort.indices("test").tolist())
    with tempfile.TemporaryDirectory(dir=folder) as place:
        files = []
        for number, file in enumerate(test.files):
            volume = np.fromfile(file, test.dtype).reshape(test.shape)
            files.append(Path(place) / f"{number}.raw")
            np.ascontiguousarray(change(volume, number)).tofile(files[-1])
        changed = replace(test, files=tuple(files))
        batch_size = one.settings.trainer.batch_size
        scores: Scores = score_run(one.run, one.settings, changed, "test", batch_size=batch_size)
        return scores


def shuffle_slices(volume: Voxels, seed: int) -> Voxels:
    """Return a volume [D, H, W, C] with its slices along depth in random order."""
    return volume[np.random.default_rng(seed).permutation(len(volume))]


def find_left_right(axcodes: str | None) -> int | None:
    """Return the axis of prepared volumes [D, H, W, C] from left to right; None where it is not known.

    >>> find_left_right("RAS"), find_left_right("SAR")
    (2, 0)
    """
    if axcodes is None:
        return None
    return 2 - next(i for i, code in enumerate(axcodes.upper()) if code in "LR")


def _select(cohort: Cohort, kept: Sequence[int]) -> Cohort:
    return replace(
        cohort,
        records=tuple(cohort.records[i] for i in kept),
        splits=tuple(cohort.splits[i] for i in kept),
        files=tuple(cohort.files[i] for i in kept),
    )
