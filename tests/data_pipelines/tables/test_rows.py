"""Patterns over columns find the files of each row, whatever their names contain."""

import unicodedata
from pathlib import Path

import pytest

from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.tables.manifest import TableOptions, load_manifest
from voxlift.data_pipelines.tables.patterns import fill_pattern, find_paths

T1 = "{id}/ses-*/*_T1w.nii.gz"
FLAIR = "{id}/ses-*/*_FLAIR.nii.gz"


@pytest.fixture
def bids(tmp_path):
    """One subject of two sessions, one of one, below a folder whose name looks like a pattern."""
    root = tmp_path / "data[1]"
    for name in ("sub-01/ses-a", "sub-01/ses-b", "sub-02/ses-a"):
        (root / name).mkdir(parents=True)
        for kind in ("T1w", "FLAIR"):
            (root / name / f"{name.replace('/', '_')}_{kind}.nii.gz").touch()
    return root


def test_a_pattern_finds_every_session_and_pairs_the_channels(bids):
    both = find_paths({"id": "sub-01"}, (T1, FLAIR), root=bids, line=2)
    assert [[path.relative_to(bids).as_posix() for path in paths] for paths in both] == [
        [f"sub-01/ses-{ses}/sub-01_ses-{ses}_{kind}.nii.gz" for kind in ("T1w", "FLAIR")] for ses in "ab"
    ]


def test_sessions_are_volumes_of_one_subject(bids):
    (bids / "participants.tsv").write_text("id\tgroup\nsub-01\tsick\nsub-02\twell\n")
    options = TableOptions(image_column=T1, label_column="group", subject_column="id")
    records = load_manifest(bids / "participants.tsv", options).records
    assert [(record.subject, record.label, record.row) for record in records] == [
        ("sub-01", 0, 2),
        ("sub-01", 0, 2),
        ("sub-02", 1, 3),
    ]


def test_a_pattern_without_a_match_is_reported_as_a_missing_file(bids):
    assert find_paths({"id": "sub-09"}, (T1,), root=bids, line=2) == [
        (bids / "sub-09" / "ses-*" / "*_T1w.nii.gz",)
    ]
    (bids / "t.csv").write_text("id,label\nsub-09,a\nsub-01,b\n")
    with pytest.raises(ManifestError, match=r"row 2: .*ses-\*/\*_T1w"):
        load_manifest(bids / "t.csv", TableOptions(image_column=T1))


def test_cells_are_taken_literally(tmp_path):
    (tmp_path / "scan [1]*.nii").touch()
    (tmp_path / "scan 1x.nii").touch()
    cells = {"image": "scan [1]*.nii", "stem": "scan [1]*"}
    for column in ("image", "{stem}.nii", "{stem}.n*"):
        assert find_paths(cells, (column,), root=tmp_path, line=2) == [(tmp_path / "scan [1]*.nii",)]


def test_absolute_patterns_and_home_work(bids, monkeypatch):
    monkeypatch.setenv("HOME", str(bids))
    for column in (f"{Path('~')}/{T1}", "~/{id}/*/*_T1w.nii.gz"):
        assert len(find_paths({"id": "sub-02"}, (column,), root=Path("/nowhere"), line=2)) == 1


def test_channels_that_find_different_numbers_name_the_row(bids):
    (bids / "sub-01/ses-b/sub-01_ses-b_FLAIR.nii.gz").unlink()
    with pytest.raises(ManifestError, match=r"Row 7: .*2 of .*T1w.*1 of .*FLAIR"):
        find_paths({"id": "sub-01"}, (T1, FLAIR), root=bids, line=7)


def test_a_missing_cell_gives_no_path():
    assert fill_pattern({"id": "n/a"}, T1) == ""
    assert find_paths({"id": "n/a"}, (T1,), root=Path("/"), line=2) == []


@pytest.mark.parametrize(("stored", "written"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_find_their_file_however_they_are_encoded(tmp_path, stored, written):
    names = {form: unicodedata.normalize(form, "tête.nii") for form in ("NFC", "NFD")}
    (tmp_path / names[stored]).touch()
    cells = {"image": names[written]}
    assert find_paths(cells, ("image",), root=tmp_path, line=2) == [(tmp_path / names[stored],)]
