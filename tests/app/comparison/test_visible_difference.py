"""What difference the test subjects of a comparison could show, before anything is trained."""

import re
from types import SimpleNamespace

import pytest

from commands import compose_command
from tiny import TINY, places_in
from voxlift.app.cli.train import read_settings
from voxlift.app.comparison.visible_difference import describe_visible_difference, read_test_records
from voxlift.app.evaluation.sample_size import smallest_visible_difference


def plan_of(folder, *overrides, folds=(None,), is_finished=False):
    """A plan of one model on tiny phantom data, with a training for each fold."""
    parts = [[] if fold is None else [f"splits.folds={len(folds)}", f"splits.fold={fold}"] for fold in folds]
    return SimpleNamespace(
        trials=[
            SimpleNamespace(fold_and_seed=(fold, 0), run=SimpleNamespace(is_finished=is_finished))
            for fold in folds
        ],
        settings=[
            read_settings(compose_command("train", *TINY, *places_in(folder), *overrides, *own))
            for own in parts
        ],
    )


def numbers_in(text):
    return [float(one) for one in re.findall(r"\d+(?:\.\d+)?", text)]


def test_classes_have_the_difference_of_their_counts_and_folds_count_every_subject(tmp_path):
    single = plan_of(tmp_path)
    records, classes = read_test_records(single)
    counts = [sum(record.label == k for record in records) for k in range(2)]
    text = describe_visible_difference(single, margin=None)
    assert f"{smallest_visible_difference(counts):.2f}" in text
    assert all(f"{count} {name}" in text for count, name in zip(counts, classes, strict=True))
    folds = plan_of(tmp_path, folds=range(3))
    assert len(read_test_records(folds)[0]) == folds.settings[0].data.subjects
    assert describe_visible_difference(plan_of(tmp_path, is_finished=True), margin=None) == ""


@pytest.mark.parametrize(
    ("name", "task"), [("pitch", "number"), ("signs", "findings"), ("winding", "grades")]
)
def test_other_tasks_have_a_difference_of_their_own_metric(name, task, tmp_path):
    plan = plan_of(tmp_path, f"data.task={name}", f"task={task}")
    text = describe_visible_difference(plan, margin=None)
    found = numbers_in(text)
    assert found[0] == len(read_test_records(plan)[0])
    assert found[1] > 0
    wider = numbers_in(describe_visible_difference(plan, margin=10 * found[1]))
    assert wider[1] == found[1]  # the margin changes only what it needs
    assert wider != found
