"""Findings are in every split, however rare; numbers by quantile; both by subject, whatever the order."""

import math
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.tables.manifest import Manifest, Record
from voxlift.data_pipelines.tables.split_checks import count_findings
from voxlift.data_pipelines.tables.splits import assign_splits, quantile_bins
from voxlift.data_pipelines.tables.stratify import stratify_iteratively


def build_manifest(targets, *, target, names, volumes=1):
    """A manifest whose subjects have `volumes` volumes each, with their row of targets."""
    records = [
        Record(f"s{number:03d}", (Path(f"{number}-{volume}.nii"),), 0, None, number, tuple(own))
        for number, own in enumerate(targets)
        for volume in range(volumes)
    ]
    return Manifest(tuple(records), names, {}, Path("t.csv"), {}, target)


@pytest.fixture(scope="module")
def findings():
    """100 subjects of two volumes: a common, a rare (4 of 100) and a partly unknown finding."""
    rng = np.random.default_rng(3)
    targets = np.zeros((100, 3))
    targets[:, 0] = rng.random(100) < 0.5
    targets[:4, 1] = 1
    targets[:, 2] = np.where(rng.random(100) < 0.4, math.nan, rng.random(100) < 0.2)
    return build_manifest(targets, target="findings", names=("common", "rare", "partly"), volumes=2)


@pytest.mark.parametrize("options", [{}, {"folds": 4, "fold": 1}])
@pytest.mark.parametrize("seed", range(5))
def test_every_split_has_subjects_with_and_without_every_finding(findings, options, seed):
    splits = assign_splits(findings, val=0.15, test=0.15, seed=seed, **options)
    counts = count_findings(findings, splits)
    assert min(min(pair) for pair in counts.values()) >= 1
    of_subject = defaultdict(set)
    for record, split in zip(findings.records, splits, strict=True):
        of_subject[record.subject].add(split)
    assert all(len(own) == 1 for own in of_subject.values())
    share = counts["train", "common"][0] / sum(
        counts[split, "common"][0] for split in ("train", "val", "test")
    )
    expected = 0.7 if not options else 0.6
    assert share == pytest.approx(expected, abs=0.06)


def test_folds_of_findings_are_disjoint_and_cover_all(findings):
    tested = [
        {
            record.subject
            for record, split in zip(
                findings.records,
                assign_splits(findings, val=0.2, test=0.2, seed=1, folds=4, fold=fold),
                strict=True,
            )
            if split == "test"
        }
        for fold in range(4)
    ]
    assert set.union(*tested) == {record.subject for record in findings.records}
    assert sum(map(len, tested)) == 100
    assert all(abs(len(fold) - 25) <= 2 for fold in tested)


def test_the_order_of_rows_does_not_matter_and_the_seed_does(findings):
    turned = Manifest(findings.records[::-1], findings.classes, {}, Path("t.csv"), {}, "findings")
    first = assign_splits(findings, val=0.2, test=0.2, seed=7)
    assert assign_splits(turned, val=0.2, test=0.2, seed=7) == first[::-1]
    assert assign_splits(findings, val=0.2, test=0.2, seed=8) != first


def test_parts_without_a_share_stay_empty_and_subjects_without_labels_are_spread():
    parts = stratify_iteratively(np.zeros((30, 2), bool), [0.5, 0.0, 0.5], np.random.default_rng(0))
    assert np.bincount(parts, minlength=3).tolist() == [15, 0, 15]


def test_a_finding_of_too_few_subjects_is_refused_with_its_count():
    few = build_manifest(
        [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (0.0, 1.0)], target="findings", names=("a", "b")
    )
    with pytest.raises(ManifestError, match="a is present in 1"):
        assign_splits(few, val=0.25, test=0.25, seed=0)


def test_a_table_whose_training_split_lacks_a_finding_is_refused():
    records = [
        Record(f"s{n}", (Path(f"{n}.nii"),), 0, split, n, (float(n % 2), float(split == "test" and n % 2)))
        for n, split in enumerate(["train"] * 4 + ["val"] * 4 + ["test"] * 4)
    ]
    with pytest.raises(ManifestError, match="train has no subject with b"):
        assign_splits(
            Manifest(tuple(records), ("a", "b"), {}, Path("t"), {}, "findings"), val=0.2, test=0.2, seed=0
        )


def test_every_split_covers_the_range_of_a_number():
    values = np.random.default_rng(0).lognormal(size=60)
    manifest = build_manifest(values[:, None], target="number", names=("age",), volumes=2)
    splits = assign_splits(manifest, val=0.2, test=0.2, seed=0)
    own = {
        split: [r.targets[0] for r, s in zip(manifest.records, splits, strict=True) if s == split]
        for split in set(splits)
    }
    for part in own.values():
        assert min(part) <= np.quantile(values, 0.2)
        assert max(part) >= np.quantile(values, 0.8)
        assert np.median(part) == pytest.approx(np.median(values), rel=0.35)
    assert {split: len(part) for split, part in own.items()} == {"train": 72, "val": 24, "test": 24}


def test_quantile_bins_are_about_equal_and_ties_stay_together():
    bins = quantile_bins([1.0] * 30 + list(range(2, 52)))
    assert len({bins[index] for index in range(30)}) == 1
    assert all(low <= high for low, high in pairwise(bins))
    assert max(np.bincount(quantile_bins(range(100)))) == 10
