"""Masks and centres in tables: lesions of one image are rows of one table, and stay with their subject."""

from __future__ import annotations

from pathlib import Path

import pytest

from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.tables.manifest import TableOptions, load_manifest, load_rows_unchecked
from voxlift.data_pipelines.tables.regions import RegionColumns
from voxlift.data_pipelines.tables.subjects import find_subject_leaks

CENTRES = RegionColumns(centre=("x", "y", "z"))
MASKS = RegionColumns(mask="mask")


def _table(folder: Path, text: str, files: str) -> Path:
    for name in files.split():
        (folder / name).touch()
    path = folder / "labels.csv"
    path.write_text(text.strip().replace(" ", "") + "\n")
    return path


def _load(table: Path, regions: RegionColumns, **options):
    return load_manifest(table, TableOptions(subject_column="who", regions=regions, **options))


def test_lesions_of_one_image_are_records_of_one_subject_with_labels_of_their_own(tmp_path):
    table = _table(
        tmp_path,
        """who,image,label,x,y,z
        s1,a.nii,benign,1,2,3
        s2,b.nii,benign,1,2,3
        s1,a.nii,malign,-4.50,2,3
        s2,b.nii,malign,7,8,9
        s2,b.nii,malign,7.0,8,9
        s3,c.nii,benign,n/a,8,9""",
        "a.nii b.nii c.nii",
    )
    manifest = _load(table, CENTRES)
    assert [(one.subject, one.label, one.region.centre) for one in manifest.records] == [
        ("s1", 0, (1, 2, 3)),
        ("s2", 0, (1, 2, 3)),
        ("s1", 1, (-4.5, 2, 3)),
        ("s2", 1, (7, 8, 9)),
    ]
    items = [one.item for one in manifest.records]
    assert len(set(items)) == 4
    assert items[2] == f"{tmp_path / 'a.nii'}@-4.5,2,3"
    assert manifest.left_out == {"image listed twice": 1, "centre missing": 1}
    assert find_subject_leaks(manifest, ["train", "test", "val", "test"])  # one subject in two splits
    lps = _load(table, RegionColumns(centre=("x", "y", "z"), space="LPS"))
    assert lps.records[2].region.centre == (4.5, -2, 3)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("s1,a.nii,p,1,2,3\ns2,a.nii,q,4,5,6", "subject"),
        ("s1,a.nii,p,1,2,3\ns1,a.nii,q,1,2,3", "label"),
        ("s1,a.nii,p,1,2,3\ns1,a.nii,q,left,2,3", "row 3"),
    ],
)
def test_rows_of_one_image_that_contradict_each_other_are_refused(tmp_path, rows, expected):
    table = _table(tmp_path, f"who,image,label,x,y,z\n{rows}", "a.nii")
    with pytest.raises(ManifestError, match=expected):
        _load(table, CENTRES)
    load_rows_unchecked(
        table, TableOptions(subject_column="who", regions=CENTRES)
    )  # the audit reads on past it


def test_masks_are_files_of_the_table_and_name_records_only_where_an_image_has_several(tmp_path):
    text = """who,image,label,mask
        s1,a.nii,p,m1.nii
        s1,a.nii,q,m2.nii
        s2,b.nii,q,m3.nii
        s3,c.nii,q,"""
    table = _table(tmp_path, text, "a.nii b.nii c.nii m1.nii m2.nii m3.nii")
    manifest = _load(table, MASKS)
    assert [one.region.mask.name for one in manifest.records] == ["m1.nii", "m2.nii", "m3.nii"]
    a, b = tmp_path / "a.nii", tmp_path / "b.nii"
    first, second, third = (one.item for one in manifest.records)
    assert (first, second) == (f"{a}@{tmp_path / 'm1.nii'}", f"{a}@{tmp_path / 'm2.nii'}")
    assert third == str(b)
    assert manifest.left_out == {"mask missing": 1}
    (tmp_path / "m3.nii").unlink()
    with pytest.raises(ManifestError, match=r"m3\.nii"):
        _load(table, MASKS)
    assert len(_load(table, MASKS, keep_absent=True).records) == 3
    with pytest.raises(ManifestError, match="lesion"):
        _load(table, RegionColumns(mask="lesion"))


def test_a_pattern_finds_each_mask_of_an_image(tmp_path):
    text = "who,image,label\ns1,a.nii,p\ns2,b.nii,q"
    table = _table(tmp_path, text, "a.nii b.nii s1_lesion1.nii s1_lesion2.nii s2_lesion1.nii")
    manifest = _load(table, RegionColumns(mask="{who}_lesion*.nii"))
    assert [(one.subject, one.region.mask.name) for one in manifest.records] == [
        ("s1", "s1_lesion1.nii"),
        ("s1", "s1_lesion2.nii"),
        ("s2", "s2_lesion1.nii"),
    ]


def test_without_columns_nothing_changes_and_a_folder_is_refused(tmp_path):
    for name in ("p", "q"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.nii").touch()
    manifest = load_manifest(tmp_path)
    assert [one.region for one in manifest.records] == [None, None]
    assert [one.item for one in manifest.records] == [str(one.images[0]) for one in manifest.records]
    with pytest.raises(ManifestError, match="mask"):
        load_manifest(tmp_path, TableOptions(regions=MASKS))
