"""A table is read cell by cell as it was written, or refused with the line at fault; no row is lost."""

import datetime as dt
import io
import math
import subprocess
import sys
import time
import zipfile

import openpyxl
import pytest

from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.tables.reader import index_labels, is_number, read_columns, read_table

HEADER = "subject,file,note,label\n"


@pytest.fixture
def read(tmp_path):
    def read_content(content, name="t.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_table(path)

    return read_content


def row(number, note="ok"):
    return f"p{number},f{number},{note},AD\n"


def table_with(*notes):
    return HEADER + "".join(row(number, note) for number, note in enumerate(notes))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (table_with("ok", '"left', "ok", "ok"), "3"),  # not closed
        (table_with("ok", '"left', 'right"', "ok"), "3 to 4"),  # two stray quotes hide the end of a row
        (table_with("ok", '"left', "ok", "ok", '"right'), "3"),
        (table_with("ok", '"', "ok"), "3"),
        (table_with('"left" lobe', "ok"), "2"),
        (HEADER + 'p1,f1,ok,"AD\np2,f2,ok,AD\np3,f3,ok,"AD\n', "2"),
        (HEADER + 'p1,f1,ok,"AD\np2,f2,ok,AD\np3,f3,ok,AD"\n', "2 to 4"),  # all of it is one cell of RFC 4180
        (table_with("ok") + 'p2,f2,ok,"AD', "3"),  # in the last cell of the file
        (table_with(*["ok"] * 9, '"L', *["ok"] * 9000), "11"),  # longer than a cell may be
    ],
)
def test_a_stray_quote_is_refused_with_its_line(read, text, line):
    with pytest.raises(ManifestError, match=rf"quote.* {line}\b|line {line} .*quote"):
        read(text)


@pytest.mark.parametrize(
    ("note", "found"),
    [
        ('"a\nb, c"', "a\nb, c"),
        ('"say ""hi"""', 'say "hi"'),
        ('5" nail', '5" nail'),
        ('left"', 'left"'),
        ('"a, b" ', "a, b"),
        ("'a", "'a"),
        ('""', ""),
    ],
)
def test_quotes_that_hide_nothing_are_read(read, note, found):
    table = read(table_with("ok", note, "ok"))
    assert [cells["note"] for cells in table.rows] == ["ok", found, "ok"]
    extra = found.count("\n")
    assert table.lines == (2, 3 + extra, 4 + extra)
    assert ("spanning_cells" in table.notes) == bool(extra)
    assert not extra or "3 to 4" in table.notes["spanning_cells"]


@pytest.mark.parametrize("mark", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_separators_inside_a_cell_are_text(read, mark):
    table = read(table_with("ok", f"first{mark}second", "ok"))
    assert [cells["note"] for cells in table.rows] == ["ok", f"first{mark}second", "ok"]
    assert table.lines == (2, 3, 4)


@pytest.mark.parametrize(
    ("text", "columns", "first"),
    [
        ("id\tAge, in years, at scan\na\t71\nb\t80\n", ("id", "Age, in years, at scan"), ["a", "71"]),
        ("id;Label (AD, CN, MCI)\na;AD\nb;CN\n", ("id", "Label (AD, CN, MCI)"), ["a", "AD"]),
        ("id;size, mm\na;4,9\nb;5,0\n", ("id", "size, mm"), ["a", "4,9"]),
        ("id,a;b;c\np,1\nq,2\n", ("id", "a;b;c"), ["p", "1"]),
        ("id\tnote\na\tx, y; z\nb\tx, y; z\n", ("id", "note"), ["a", "x, y; z"]),
        ('"id, or name";x\na;1\nb;2\n', ("id, or name", "x"), ["a", "1"]),
        ("image\nodd, name\nother, name\n", ("image",), ["odd, name"]),
        ("Age, in years\n71\n80\n", ("Age, in years",), ["71"]),
        ("sep=;\r\nid;a,b\r\nx;1\r\n", ("id", "a,b"), ["x", "1"]),
        ("id,b\rx,1\ry,2\r", ("id", "b"), ["x", "1"]),
    ],
)
def test_all_lines_decide_on_the_delimiter(read, text, columns, first):
    table = read(text)
    assert table.columns == columns
    assert list(table.rows[0].values()) == first


def test_uneven_rows_are_listed_by_line(read):
    with pytest.raises(ManifestError, match=r"4 columns, but line 3 has 3, line 4 has more than 4"):
        read(table_with("ok") + "p,f,AD\np,f,a,b,AD\n")


def test_invisible_characters_at_the_ends_of_cells_do_not_count(read):
    table = read("\ufeff\ufeffid\u200b,\u00a0label\na\u00a0,AD\u200b\u00a0\nb\ufeff,\u2060CN\n")
    assert table.columns == ("id", "label")
    assert [list(cells.values()) for cells in table.rows] == [["a", "AD"], ["b", "CN"]]


def test_a_header_wider_than_all_rows_together_costs_no_memory(read):
    with pytest.raises(ManifestError, match="columns"):
        read("a,b" + ",x" * 20_000 + "\n" + "1,2\n" * 20_000)


@pytest.mark.parametrize(
    "text", ["1_200", "0x10", "1e", "1,5", "inf", "nan", "\u0661\u0662", "1 2", "1d3", "--1"]
)
def test_text_that_python_or_c_may_read_as_a_number_is_text(text):
    assert not is_number(text)


def test_numbers_are_those_that_tables_hold():
    assert all(map(is_number, ("1e3", "-1.5E-2", "+7", ".5", "5.", "007")))
    found, _ = index_labels(["100", "1_200", "1e3"], classes=("low", "high"), label_bins=(500.0,))
    assert (found[0], found[2]) == (0, 1)
    assert "1_200" in found[1]


def workbook(rows, *, others=(), hidden=()):
    book = openpyxl.Workbook()
    for cells in rows:
        book.active.append(cells)
    for title in (*others, *hidden):
        book.create_sheet(title).sheet_state = "hidden" if title in hidden else "visible"
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def test_a_workbook_reads_as_its_csv_export(read):
    rows = [
        ["subject", "file", "label", "day", None],
        [7.0, "a.nii", True, dt.date(2024, 1, 2)],
        [None],
        ["007", "b\nc.nii", 1.5, dt.time(3, 4)],
    ]
    for name in ("t.xlsx", "t.csv"):
        table = read(workbook(rows, hidden=("codes",)), name)
        assert [list(cells.values()) for cells in table.rows] == [
            ["7", "a.nii", "TRUE", "2024-01-02"],
            ["007", "b\nc.nii", "1.5", "03:04:00"],
        ]
        assert table.lines == (2, 4)
        assert not table.notes


def test_further_sheets_of_a_workbook_are_named(read):
    table = read(workbook([["id", "label"], ["a", "b"]], others=("Codebook",)))
    assert "Codebook" in table.notes["other_sheets"]


def archive(parts):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in parts.items():
            packed.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        workbook([["id", "label"], ["a", "b"]])[:-200],
        archive({"a.txt": "x"}),
        archive({"xl/workbook.xml": "<not a workbook"}),
        archive({"xl/workbook.xml": bytes(200_000_000)}),
        workbook([["id", "label"]]),
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512),
    ],
    ids=["cut off", "no workbook", "damaged", "bomb", "empty", "xls"],
)
def test_workbooks_that_cannot_be_used_are_refused(read, content):
    with pytest.raises(ManifestError, match=r"t\.xlsx"):
        read(content, "t.xlsx")


def swap_part(content, part, text):
    """Return a workbook with another text in one part."""
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    return archive(parts | {part: text})


SHEET = "xl/worksheets/sheet1.xml"
BOMBS = {  # the part, its head, what is repeated in it, and its tail
    "rows": (SHEET, "<worksheet><sheetData>", "<row/>", "</sheetData></worksheet>"),
    "cells": (SHEET, "<worksheet><sheetData><row>", "<c/>", "</row></sheetData></worksheet>"),
    "one text": (SHEET, "<worksheet><sheetData><row><c><v>", "x", "</v></c></row></sheetData></worksheet>"),
    "shared texts": ("xl/sharedStrings.xml", "<sst>", "<si/>", "</sst>"),
    "styles": ("xl/styles.xml", "<styleSheet><cellXfs>", "<xf/>", "</cellXfs></styleSheet>"),
}


@pytest.mark.parametrize("form", BOMBS)
def test_a_workbook_with_a_part_that_unpacks_to_far_more_is_refused_at_once(form, read):
    """100 MB, which openpyxl would read for half a minute into more than a gigabyte."""
    part, head, unit, tail = BOMBS[form]
    text = head + unit * (100 * 2**20 // len(unit)) + tail
    content = swap_part(workbook([["id", "label"], ["a", "b"]]), part, text)
    started = time.process_time()
    with pytest.raises(ManifestError, match=r"t\.xlsx"):
        read(content, "t.xlsx")
    assert time.process_time() - started < 2


def test_a_large_plain_workbook_is_read(read):
    rows = [["id", "label"], *([f"s{n}", "a"] for n in range(9000))]
    assert len(read(workbook(rows), "t.xlsx").rows) == 9000


def test_pandas_and_openpyxl_are_imported_with_the_first_table():
    code = (
        "import sys, voxlift.data_pipelines.tables.manifest, voxlift.data_pipelines.tables; "
        "sys.exit(bool({'pandas', 'openpyxl'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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
