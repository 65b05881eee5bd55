"""The audit of findings and numbers: distribution, unknown cells, and what spoils a training."""

from pathlib import Path

import numpy as np
import pytest

from voxlift.data_pipelines.audit.targets import (
    check_targets,
    class_labels,
    describe_targets,
    label_texts,
    page_groups,
)
from voxlift.data_pipelines.tables.manifest import Manifest, Record

SPLITS = ["train"] * 6 + ["val"] * 2 + ["test"] * 2


def build_manifest(target, names, targets, splits=SPLITS):
    records = tuple(
        Record(f"s{row}", (Path(f"{row}.nii"),), 0, split, row, tuple(map(float, np.atleast_1d(own))))
        for row, (own, split) in enumerate(zip(targets, splits, strict=True))
    )
    return Manifest(records, names, {}, Path("t.csv"), {}, target)


AGES = [50, 55, 60, 62, 64, 66, 40, 58, 61, 90]
NAN = np.nan
SIGNS = [(1, NAN), (0, 1), (1, 1), (0, 0), (1, NAN), (0, NAN), (1, 0), (0, 1), (1, NAN), (0, 0)]


def test_a_number_has_its_distribution_per_split_and_values_beyond_training_are_a_warning():
    manifest = build_manifest("number", ("age",), AGES)
    rows = describe_targets(manifest)
    assert [(row["split"], row["rows"], row["minimum"], row["maximum"]) for row in rows] == [
        ("train", 6, 50, 66),
        ("val", 2, 40, 58),
        ("test", 2, 61, 90),
    ]
    assert rows[0]["median"] == np.median(AGES[:6])
    found = {finding.kind: finding for finding in check_targets(manifest, SPLITS)}
    assert found["target_distribution"].severity == "note"
    assert found["target_range"].severity == "warning"
    assert not any(finding.spoils for finding in found.values())


def test_a_constant_number_spoils_training():
    manifest = build_manifest("number", ("age",), [50] * 10)
    (found,) = check_targets(manifest, SPLITS)
    assert (found.kind, found.spoils) == ("constant_target", True)
    assert list(class_labels(manifest)) == []
    assert page_groups(manifest)[0] == [0] * 10


def test_unknown_cells_are_counted_and_an_outcome_that_never_occurs_spoils_training():
    manifest = build_manifest("findings", ("cyst", "bleed"), SIGNS)
    assert describe_targets(manifest)[1] == {
        "finding": "bleed", "split": "train", "absent": 1, "present": 2, "unknown": 3,
    }  # fmt: skip
    found = [finding for finding in check_targets(manifest, SPLITS) if finding.kind == "unknown_cells"]
    assert len(found) == 1
    assert "bleed: 4 of 10" in found[0].message
    absent = build_manifest("findings", ("cyst",), [0] * 10)
    (spoiling,) = [finding for finding in check_targets(absent, SPLITS) if finding.spoils]
    assert (spoiling.kind, "cyst" in spoiling.message) == ("small_class", True)


def test_an_outcome_without_training_subjects_spoils_training():
    manifest = build_manifest("findings", ("cyst",), [0] * 6 + [1] * 4)
    kinds = [finding.kind for finding in check_targets(manifest, SPLITS) if finding.spoils]
    assert kinds == ["untrained_class"]


@pytest.mark.parametrize(
    ("target", "names", "targets", "expected"),
    [
        ("number", ("age",), AGES, [([0, 0, 0, 1, 1, 1, 0, 0, 1, 1], "age above 60.5")]),
        (
            "findings",
            ("cyst", "bleed"),
            SIGNS,
            [
                ([1, 0, 1, 0, 1, 0, 1, 0, 1, 0], "cyst present"),
                ([None, 1, 1, 0, None, None, 0, 1, None, 0], "bleed present"),
            ],
        ),
    ],
)
def test_targets_become_classes_for_the_checks_of_confounding(target, names, targets, expected):
    found = list(class_labels(build_manifest(target, names, targets)))
    assert [(labels, classes[1]) for labels, classes in found] == expected


def test_equal_labels_have_equal_texts_and_each_record_one_group():
    manifest = build_manifest("findings", ("cyst", "bleed"), SIGNS)
    labels, texts = label_texts(manifest)
    assert texts[labels[0]] == "cyst yes, bleed unknown"
    assert labels[0] == labels[4] != labels[2]
    groups, names = page_groups(manifest)
    assert [names[group] for group in groups[:4]] == ["cyst", "bleed", "bleed", "none known"]
