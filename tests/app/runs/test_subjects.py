"""Who the subjects of a run are: the columns of their table, the flow of rows, the table of subjects."""

import csv
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from voxlift.app.config import (
    CacheSettings,
    DataSettings,
    EvaluationSettings,
    PreprocessSettings,
    SettingsError,
    TrainSettings,
)
from voxlift.app.data.cohort import gather_cohort
from voxlift.app.files import read_rows
from voxlift.app.runs.folder import RunFolder
from voxlift.app.runs.subjects import check_reported_columns, read_subjects, write_subjects


@pytest.fixture
def settings(tmp_path):
    """Settings of a table of 24 subjects in two folders; one has no label, and one is listed twice."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(24):
        folder = tmp_path / ("north" if i % 3 else "south")
        folder.mkdir(exist_ok=True)
        file = folder / f"{i}.nii.gz"
        shape = (5, 6, 7) if i % 2 else (4, 6, 7)
        nib.save(nib.Nifti1Image(rng.integers(0, 9, shape).astype(np.int16), np.diag([2, 1.5, 1, 1])), file)
        rows.append(
            [
                f"p{i}",
                f"{folder.name}/{file.name}",
                "" if i == 5 else "ab"[i % 2],
                str(30 + i),
                "FM"[i % 2],
                "x" * 500,
            ]
        )
    rows.append(rows[0])
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["subject", "file", "label", "Age", "gender", "notes"], *rows])
    return TrainSettings(
        data=DataSettings(
            name="manifest", table=str(tmp_path / "t.csv"), image_column="file", subject_column="subject"
        ),
        preprocess=PreprocessSettings(name="none", shape=[4, 4, 4]),
        cache=CacheSettings(folder=str(tmp_path / "cache")),
    )


def write(settings, tmp_path):
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    cohort = gather_cohort(settings)
    write_subjects(cohort, run, settings)
    return run, cohort


def test_a_run_keeps_the_columns_of_its_table_and_facts_of_its_files(settings, tmp_path):
    run, cohort = write(settings, tmp_path)
    items = [str(record.images[0]) for record in cohort.records]
    (tmp_path / "t.csv").unlink()  # it works without the table
    found = read_subjects(run, settings)
    assert found.read("Age", items) == [30.0 + int(record.subject[1:]) for record in cohort.records]
    assert set(found.read("header.spacing", items)) == {"1x1.5x2"}  # depth, height, width
    assert found.read("header.shape.width", items) == [
        5.0 if int(r.subject[1:]) % 2 else 4.0 for r in cohort.records
    ]
    assert set(found.read("header.folder", items)) == {"north", "south"}
    assert set(found.read("header.format", items)) == {".nii.gz"}
    rows = read_rows(run.subjects)
    assert (
        rows[0]["table.subject"] == rows[0]["subject"]
    )  # a column of the table with the name of one of ours
    assert len(rows[0]["notes"]) == 200
    with pytest.raises(SettingsError, match=r"evaluation\.by.*gender"):
        found.read("gendr", items)


def test_the_flow_adds_up(settings, tmp_path):
    run, cohort = write(settings, tmp_path)
    rows = read_rows(run.flow)
    count = {(row["step"], row["reason"]): int(row["rows"]) for row in rows}
    assert count["read", ""] == 25
    left_out = sum(value for (step, _), value in count.items() if step == "left out")
    assert count["read", ""] == left_out + count["used", ""]
    assert (
        count["used", ""]
        == len(cohort.records)
        == sum(count["used", split] for split in ("train", "val", "test"))
    )
    assert {reason for step, reason in count if step == "left out"} == {"label missing", "image listed twice"}


def test_rows_of_an_outer_fold_and_bad_files_are_in_the_flow(settings, tmp_path):
    (tmp_path / "north" / "1.nii.gz").write_bytes(b"no image")
    settings = replace(settings, data=replace(settings.data, on_bad_file="skip"))
    settings.splits.outer_folds = 4
    run, _ = write(settings, tmp_path)
    count = {row["reason"]: int(row["rows"]) for row in read_rows(run.flow) if row["step"] == "left out"}
    assert count.keys() >= {"in the outer test fold"}
    assert sum(int(row["rows"]) for row in read_rows(run.flow) if row["reason"] == "") == 25 + 25 - sum(
        count.values()
    )


def test_the_table_of_subjects_finds_usual_columns_and_takes_further_ones(settings, tmp_path):
    settings.evaluation.describe = ["header.shape"]
    run, cohort = write(settings, tmp_path)
    rows = read_rows(run.table_one)
    assert [row["variable"] for row in rows if row["smd test"]] == ["Age", "gender", "header.shape"]
    train = [
        float(30 + int(r.subject[1:]))
        for r, s in zip(cohort.records, cohort.splits, strict=True)
        if s == "train"
    ]
    assert rows[0]["train"] == f"{np.mean(train):.4g} ({np.std(train, ddof=1):.4g})"


def test_an_older_run_reads_the_table_again_and_without_it_names_what_is_missing(settings, tmp_path):
    run, cohort = write(settings, tmp_path)
    run.subjects.unlink()
    items = [str(record.images[0]) for record in cohort.records]
    assert read_subjects(run, settings).read("gender", items[:1]) == [
        "FM"[int(cohort.records[0].subject[1:]) % 2]
    ]
    shutil.move(tmp_path / "t.csv", tmp_path / "elsewhere.csv")
    with pytest.raises(SettingsError, match=r"subjects\.csv"):
        read_subjects(run, settings)


def test_a_misspelt_column_is_refused_before_any_image_is_read(settings):
    for evaluation, text in (
        (EvaluationSettings(by=["agee:40"]), "Did you mean"),
        (EvaluationSettings(describe=["header.spacin"]), "Did you mean"),
        (EvaluationSettings(by=["gender:40"]), "gender"),  # words have no edges
    ):
        with pytest.raises(SettingsError, match=text):
            check_reported_columns(replace(settings, evaluation=evaluation))
    check_reported_columns(replace(settings, evaluation=EvaluationSettings(by=["Age:40", "header.axcodes"])))
