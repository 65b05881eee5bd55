"""Columns of a table are read as numbers, text and missing values, in the order of the rows."""

import math

import pytest

from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.tables.values import read_columns


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("id,age,sex,grade\n\na,61,F,1\nb,n/a,M,2\nc,7.5,,89+\nd,-1e2,F,4\n", encoding="utf-8")
    return path


def test_columns_are_numbers_or_text_and_missing_cells_are_nan(table):
    found = read_columns(table, [3, 5, 4], ["age", "sex"])
    assert found[:, 0][:2].tolist() == [61.0, 7.5]
    assert math.isnan(found[2, 0])
    assert math.isnan(found[1, 1])
    assert [found[0, 1], found[2, 1]] == ["F", "M"]


def test_a_column_with_one_cell_of_text_is_text_and_a_warning_names_the_cell(table, caplog):
    found = read_columns(table, [3, 4, 5, 6], ["grade"])
    assert found[:, 0].tolist() == ["1", "2", "89+", "4"]
    assert "'89+'" in caplog.text


def test_a_missing_column_is_reported_with_the_setting_and_the_most_similar_column(table):
    with pytest.raises(ManifestError, match=r"'aeg'.*'age'.*model\.columns"):
        read_columns(table, [3], ["aeg"])


@pytest.mark.parametrize(("mark", "found"), [(";", [61.5, 1067.25]), (",", ["61,5", "1.067,25"])])
def test_a_comma_is_the_decimal_mark_where_semicolons_separate_the_cells(tmp_path, mark, found):
    path = tmp_path / "labels.csv"
    path.write_text(f'id{mark}age\na{mark}"61,5"\nb{mark}"1.067,25"\n', encoding="utf-8")
    assert read_columns(path, [2, 3], ["age"])[:, 0].tolist() == found


def test_a_folder_per_class_has_no_columns(tmp_path):
    with pytest.raises(ManifestError, match="age"):
        read_columns(tmp_path, [], ["age"])
