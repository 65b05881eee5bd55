"""Subjects are split by fraction or fold, stratified, reproducibly, and never across splits."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.tables.manifest import Manifest, Record
from voxlift.data_pipelines.tables.split_checks import split_table
from voxlift.data_pipelines.tables.splits import assign_splits, keep_training_fraction, select_records


def make(sizes, *, volumes=1, splits=None):
    """A manifest with sizes[k] subjects of class k, each with some volumes."""
    names = [(f"s{label}-{i}", label) for label, size in enumerate(sizes) for i in range(size)]
    records = tuple(
        Record(name, (Path(f"/{name}_{v}.nii"),), label, splits and splits[name], row)
        for row, (name, label, v) in enumerate((n, k, v) for n, k in names for v in range(volumes))
    )
    return Manifest(records, tuple(f"class{k}" for k in range(len(sizes))), {}, Path("t.csv"))


def of_class(manifest, splits, label):
    return Counter(s for r, s in zip(manifest.records, splits, strict=True) if r.label == label)


@pytest.mark.parametrize("sizes", [(40, 40), (23, 7), (3, 90, 11), (10, 10, 5, 4)])
@pytest.mark.parametrize(("val", "test"), [(0.15, 0.2), (0.1, 0.1), (0.0, 0.25), (0.3, 0.3)])
def test_fractions_hold_within_one_subject_of_each_class(sizes, val, test):
    manifest = make(sizes)
    splits = assign_splits(manifest, val=val, test=test, seed=3)
    for label, size in enumerate(sizes):
        counts = of_class(manifest, splits, label)
        for split, fraction in (("val", val), ("test", test)):
            assert abs(counts[split] - size * fraction) <= 1
            assert (counts[split] > 0) == (fraction > 0)
        assert counts["train"] > 0


def test_all_volumes_of_a_subject_stay_together():
    manifest = make((9, 11), volumes=3)
    splits = assign_splits(manifest, val=0.2, test=0.2, seed=0)
    split_of = {}
    for record, split in zip(manifest.records, splits, strict=True):
        assert split_of.setdefault(record.subject, split) == split
    assert Counter(split_of.values()) == {"train": 12, "val": 4, "test": 4}


@pytest.mark.parametrize("folds", [0, 4])
def test_row_order_does_not_matter_and_the_seed_does(folds):
    manifest = make((30, 20), volumes=2)
    order = np.random.default_rng(1).permutation(len(manifest.records))
    shuffled = replace(manifest, records=tuple(manifest.records[i] for i in order))
    settings = {"val": 0.2, "test": 0.2, "folds": folds, "fold": min(folds, 2)}
    plain = assign_splits(manifest, seed=5, **settings)
    assert tuple(plain[i] for i in order) == assign_splits(shuffled, seed=5, **settings)
    assert plain == assign_splits(manifest, seed=5, **settings)
    assert plain != assign_splits(manifest, seed=6, **settings)


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_the_test_splits_of_the_folds_partition_the_subjects(folds):
    sizes = (17, 8, 5)
    manifest = make(sizes)
    tested = Counter()
    for fold in range(folds):
        splits = assign_splits(manifest, val=0.2, test=0, seed=7, folds=folds, fold=fold)
        tested.update(r.subject for r, s in zip(manifest.records, splits, strict=True) if s == "test")
        for label, size in enumerate(sizes):
            counts = of_class(manifest, splits, label)
            assert abs(counts["test"] - size / folds) < 1
            assert abs(counts["val"] - 0.2 * size) <= 1
    assert tested == Counter(record.subject for record in manifest.records)


def test_the_tables_own_split_is_kept_and_a_missing_one_is_taken_from_train():
    own = {f"s{k}-{i}": "test" if i < 3 else "train" for k in range(2) for i in range(13)}
    manifest = make((13, 13), volumes=2, splits=own)
    splits = assign_splits(manifest, val=0.2, test=0.5, seed=0)
    for record, split in zip(manifest.records, splits, strict=True):
        assert (split == "test") == (own[record.subject] == "test")
    assert Counter(splits) == {"train": 32, "val": 8, "test": 12}


def test_a_complete_split_of_the_table_is_taken_as_it_is():
    own = {f"s{k}-{i}": ("train", "val", "test")[i % 3] for k in range(2) for i in range(6)}
    manifest = make((6, 6), splits=own)
    splits = assign_splits(manifest, val=0.4, test=0.4, seed=0)
    assert splits == tuple(record.split for record in manifest.records)


def test_the_stratum_is_the_most_frequent_label_of_a_subject():
    manifest = make((12, 12), volumes=3)
    # The last volume of every subject carries the other class.
    records = tuple(replace(r, label=1 - r.label) if r.row % 3 == 2 else r for r in manifest.records)
    splits = assign_splits(replace(manifest, records=records), val=0.25, test=0.25, seed=0)
    assert splits == assign_splits(manifest, val=0.25, test=0.25, seed=0)


def test_nested_validation_never_sees_the_outer_test_split():
    manifest = make((20, 20))
    outer = assign_splits(manifest, val=0, test=0, seed=1, folds=5, fold=2)
    inner = select_records(manifest, outer)
    assert len(inner.records) == 32
    tested = {r.subject for r, s in zip(manifest.records, outer, strict=True) if s == "test"}
    assert not tested & {record.subject for record in inner.records}
    assert set(assign_splits(inner, val=0.1, test=0, seed=1, folds=4, fold=0)) == {"train", "val", "test"}


def test_the_table_of_counts_adds_up():
    manifest = make((10, 20), volumes=2)
    table = split_table(manifest, assign_splits(manifest, val=0.1, test=0.2, seed=0))
    assert [(c.split, c.class_name, c.subjects, c.volumes) for c in table] == [
        ("train", "class0", 7, 14),
        ("train", "class1", 14, 28),
        ("val", "class0", 1, 2),
        ("val", "class1", 2, 4),
        ("test", "class0", 2, 4),
        ("test", "class1", 4, 8),
    ]


@pytest.mark.parametrize(
    ("sizes", "settings", "expected"),
    [
        ((9, 2), {}, "'class1' has 2"),
        ((9, 4), {"folds": 5}, "'class1' has 4"),
        ((9, 9), {"val": 0.6, "test": 0.5}, r"splits\.val=0\.6.*splits\.test=0\.5"),
        ((9, 9), {"val": -0.1}, r"splits\.val=-0\.1"),
        ((9, 9), {"folds": 3, "fold": 3}, r"splits\.fold=3"),
        ((9, 9), {"folds": 1}, r"splits\.folds=1"),
        ((9, 9), {"folds": 2, "val": 0.5}, r"splits\.val=0\.5"),
    ],
)
def test_requests_that_cannot_be_met_are_reported_with_their_setting(sizes, settings, expected):
    with pytest.raises(ManifestError, match=expected):
        assign_splits(make(sizes), **{"val": 0.2, "test": 0.2, "seed": 0, **settings})


def test_the_error_for_a_numeric_label_names_the_setting_for_bins():
    numbers = replace(make([1, 1, 1]), classes=("41", "42.5", "57"))
    with pytest.raises(ManifestError, match=r"'data\.label_bins=\[EDGE\]'"):
        assign_splits(numbers, val=0.2, test=0.2, seed=0)


def test_a_subject_in_two_splits_is_listed():
    manifest = make((4, 4), volumes=2)
    records = tuple(
        replace(r, split="train" if r.row % 2 or r.subject != "s0-1" else "test") for r in manifest.records
    )
    with pytest.raises(ManifestError, match=r"s0-1 \(test, train\)"):
        assign_splits(replace(manifest, records=records), val=0.2, test=0.2, seed=0)


def test_a_table_split_may_lack_a_class_outside_training(caplog):
    own = {f"s{k}-{i}": ("train", "val", "test")[i % 3] for k in range(3) for i in range(6)}
    own |= {"s2-2": "train", "s2-5": "val"}
    splits = assign_splits(make((6, 6, 6), splits=own), val=0.2, test=0.2, seed=0)
    assert splits == tuple(own.values())
    assert "'class2'" in caplog.text
    with pytest.raises(ManifestError, match="test has no 'class1'"):
        assign_splits(make((6, 6), splits=own | {"s1-2": "val", "s1-5": "val"}), val=0.2, test=0.2, seed=0)


def test_a_table_split_without_a_class_and_folds_over_it_are_refused():
    own = {f"s{k}-{i}": "test" if k else "train" for k in range(2) for i in range(6)}
    manifest = make((6, 6), splits=own)
    with pytest.raises(ManifestError, match="train has no 'class1'"):
        assign_splits(manifest, val=0.2, test=0.2, seed=0)
    with pytest.raises(ManifestError, match=r"splits\.folds=3"):
        assign_splits(manifest, val=0.2, test=0.2, seed=0, folds=3)


@pytest.mark.parametrize("sizes", [(40, 24), (100, 3), (17, 9, 30)])
def test_a_fraction_of_the_training_subjects_is_stratified_and_within_any_larger_one(sizes):
    manifest = make(sizes, volumes=2)
    splits = assign_splits(manifest, val=0.2, test=0.2, seed=4)
    before: set[str] = set()
    held_out = [r.subject for r, split in zip(manifest.records, splits, strict=True) if split != "train"]
    for fraction in (0.125, 0.25, 0.5, 1.0):
        part, own = keep_training_fraction(manifest, splits, fraction=fraction, seed=4)
        pairs = list(zip(part.records, own, strict=True))
        assert [record.subject for record, split in pairs if split != "train"] == held_out
        kept = {record.subject for record, split in pairs if split == "train"}
        assert before <= kept
        assert sum(split == "train" for split in own) == 2 * len(kept)  # with all their volumes
        for label in range(len(sizes)):
            all_of, left = (of_class(m, s, label)["train"] / 2 for m, s in ((manifest, splits), (part, own)))
            assert left >= 1
            assert abs(left - fraction * all_of) <= 1
        before = kept
    assert (part, own) == (manifest, splits)
    assert (
        keep_training_fraction(manifest, splits, fraction=0.5, seed=5)[0]
        != keep_training_fraction(manifest, splits, fraction=0.5, seed=4)[0]
    )
