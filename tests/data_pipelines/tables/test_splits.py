"""Subjects are split by fraction or fold, stratified, reproducibly, and never across splits."""

import math
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.tables.manifest import Manifest, Record, TableOptions, load_manifest
from voxlift.data_pipelines.tables.split_checks import count_findings, split_table
from voxlift.data_pipelines.tables.splits import (
    assign_splits,
    group_by_site,
    keep_training_fraction,
    leave_site_out,
    quantile_bins,
    read_sites,
    select_records,
    stratify_iteratively,
)


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


def write_table(folder, sites, labels=None, subjects=None):
    lines = ["image,label,subject,site"]
    for i, site in enumerate(sites):
        image = folder / f"{i}.nii.gz"
        image.touch()
        label = labels[i] if labels else "ab"[i // 2 % 2]
        lines.append(f"{image.name},{label},{subjects[i] if subjects else f's{i:02d}'},{site}")
    table = folder / "table.csv"
    table.write_text("\n".join(lines))
    return load_manifest(str(table), TableOptions(subject_column="subject"))


def test_a_site_is_in_one_split_only(tmp_path):
    sites = [f"site{i % 6}" for i in range(60)]
    manifest = write_table(tmp_path, sites, labels=["ab"[i // 6 % 2] for i in range(60)])
    found = read_sites(manifest, "site", setting="splits.by")
    assert list(found) == sites
    splits = assign_splits(group_by_site(manifest, found), val=0.2, test=0.2, seed=0)
    assert set(splits) == {"train", "val", "test"}
    for site in set(sites):
        assert len({split for split, own in zip(splits, sites, strict=True) if own == site}) == 1


@pytest.mark.parametrize("by_site", [False, True])
def test_each_fold_tests_one_site(tmp_path, by_site):
    sites = [f"site{i % 4}" for i in range(80)]
    manifest = write_table(tmp_path, sites, labels=["ab"[i // 4 % 2] for i in range(80)])
    for fold in range(4):
        splits = np.array(leave_site_out(manifest, sites, fold=fold, val=0.2, seed=0, by_site=by_site))
        assert set(np.array(sites)[splits == "test"]) == {f"site{fold}"}
        assert (splits == "test").sum() == 20
        assert (splits == "val").sum() == (20 if by_site else 16)
    with pytest.raises(ManifestError, match=r"splits\.fold=4"):
        leave_site_out(manifest, sites, fold=4, val=0.2, seed=0)


def test_missing_columns_empty_cells_and_subjects_at_two_sites_are_refused(tmp_path):
    manifest = write_table(tmp_path, ["x", "y"] * 8)
    with pytest.raises(ManifestError, match=r"splits\.by=scanner"):
        read_sites(manifest, "scanner", setting="splits.by")
    (tmp_path / "empty").mkdir()
    manifest = write_table(tmp_path / "empty", ["x", ""] * 8)
    with pytest.raises(ManifestError, match="8 used rows"):
        read_sites(manifest, "site", setting="splits.by")
    (tmp_path / "two").mkdir()
    names = [f"s{i // 2}" for i in range(16)]
    manifest = write_table(tmp_path / "two", ["x", "y"] * 8, ["ab"[i // 8] for i in range(16)], names)
    with pytest.raises(ManifestError, match="8 subjects"):
        read_sites(manifest, "site", setting="splits.leave_out")
