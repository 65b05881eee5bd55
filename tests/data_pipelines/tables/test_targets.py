"""Label cells become findings or a number; what nothing can be learnt from is refused before any image."""

import math

import pytest

from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.tables.manifest import TableOptions, load_manifest, load_rows_unchecked


def write_table(folder, columns, rows):
    """Write a table with an empty image file a row, and return it."""
    for number in range(len(rows)):
        (folder / f"{number}.nii").touch()
    lines = [",".join(["image", *columns])] + [f"{n}.nii,{row}" for n, row in enumerate(rows)]
    table = folder / "labels.csv"
    table.write_text("\n".join(lines), encoding="utf-8")
    return table


FINDINGS = TableOptions(target="findings", label_columns=("a", "b"))
NUMBER = TableOptions(target="number", label_column="age")


def test_findings_are_read_as_people_write_them_and_missing_cells_stay_unknown(tmp_path):
    table = write_table(tmp_path, ["a", "b"], ["1,no", "0.0,", "YES,true", "n/a,False", ",n/a"])
    found = load_manifest(table, FINDINGS)
    targets = [record.targets for record in found.records]
    assert str(targets) == str([(1.0, 0.0), (0.0, math.nan), (1.0, 1.0), (math.nan, 0.0)])
    assert found.classes == ("a", "b")
    assert (found.target, found.left_out) == ("findings", {"no finding known": 1})
    assert [one.targets for one in load_rows_unchecked(table, FINDINGS).records] == targets


@pytest.mark.parametrize(
    ("rows", "named"),
    [(["1,1", "0,maybe"], "row 3: b 'maybe'"), (["1,0", "0,0", "1,"], "b (never present)")],
)
def test_unclear_and_constant_findings_are_refused(tmp_path, rows, named):
    with pytest.raises(ManifestError) as error:
        load_manifest(write_table(tmp_path, ["a", "b"], rows), FINDINGS)
    assert named in str(error.value)


def test_one_image_with_two_lists_of_findings_is_a_contradiction(tmp_path):
    table = write_table(tmp_path, ["a", "b"], ["1,0", "0,1"])
    table.write_text(table.read_text().replace("1.nii", "0.nii"))
    with pytest.raises(ManifestError, match="two labels"):
        load_manifest(table, FINDINGS)


def test_numbers_are_read_and_rows_without_one_are_counted(tmp_path):
    found = load_manifest(write_table(tmp_path, ["age"], ["61.5", "", "7e1", "old"]), NUMBER)
    assert [record.targets for record in found.records] == [(61.5,), (70.0,)]
    assert found.classes == ("age",)
    assert sum(found.left_out.values()) == 2


def test_a_number_that_never_differs_is_refused_with_its_column(tmp_path):
    with pytest.raises(ManifestError, match="age"):
        load_manifest(write_table(tmp_path, ["age"], ["5", "5", "x"]), NUMBER)


def test_a_folder_per_class_has_no_columns(tmp_path):
    with pytest.raises(ManifestError, match="task=classes"):
        load_manifest(tmp_path, FINDINGS)
