"""Columns of a table come back as numbers, words and gaps, in the order of the records."""

import math
from pathlib import Path

import pytest

from voxlift.data_pipelines.tables.columns import read_columns
from voxlift.data_pipelines.tables.manifest import Record
from voxlift.data_pipelines.tables.reader import ManifestError


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("id,age,sex,grade\n\na,61,F,1\nb,n/a,M,2\nc,7.5,,89+\nd,-1e2,F,4\n", encoding="utf-8")
    return path


def record(row):
    return Record(f"s{row}", (Path("x.nii"),), 0, None, row)


def test_numbers_and_words_are_told_apart_and_gaps_are_nan(table):
    found = read_columns(table, [record(3), record(5), record(4)], ["age", "sex"])
    assert found[:, 0][:2].tolist() == [61.0, 7.5]
    assert math.isnan(found[2, 0])
    assert math.isnan(found[1, 1])
    assert [found[0, 1], found[2, 1]] == ["F", "M"]


def test_a_column_with_a_stray_cell_is_words_and_a_warning_names_the_cell(table, caplog):
    found = read_columns(table, [record(row) for row in (3, 4, 5, 6)], ["grade"])
    assert found[:, 0].tolist() == ["1", "2", "89+", "4"]
    assert "'89+'" in caplog.text


def test_an_absent_column_is_named_with_its_neighbour(table):
    with pytest.raises(ManifestError, match="did you mean 'age'"):
        read_columns(table, [record(3)], ["aeg"])


@pytest.mark.parametrize(("mark", "found"), [(";", [61.5, 1067.25]), (",", ["61,5", "1.067,25"])])
def test_a_comma_is_the_decimal_mark_where_semicolons_part_the_cells(tmp_path, mark, found):
    path = tmp_path / "labels.csv"
    path.write_text(f'id{mark}age\na{mark}"61,5"\nb{mark}"1.067,25"\n', encoding="utf-8")
    assert read_columns(path, [record(2), record(3)], ["age"])[:, 0].tolist() == found


def test_an_absent_column_is_told_with_the_setting_that_names_it(table):
    with pytest.raises(ManifestError, match="columns says which are meant"):
        read_columns(table, [record(3)], ["weight"])


def test_a_folder_per_class_has_no_columns(tmp_path):
    with pytest.raises(ManifestError, match="folder per class"):
        read_columns(tmp_path, [], ["age"])
