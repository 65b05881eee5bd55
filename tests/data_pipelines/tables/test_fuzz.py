"""A damaged table ends in a table or an error that names the file: no crash, hang or memory blow-up."""

import io
import resource
import time
import zipfile
from itertools import product

import numpy as np
import openpyxl
import pytest

from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.tables.reader import read_table

SECONDS, KILOBYTES = 10, 500_000
INSERTS = (
    b'"',
    b'""',
    b",",
    b";",
    b"\t",
    b"\n",
    b"\r",
    b"\r\n",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x85",
    b"\x0b",
)
INSERTS += (
    "\u2028".encode(),
    "\u200b".encode(),
    b"=1+1",
    b"1e999",
    b"sep=;\n",
    b"PK\x03\x04",
    b"\x1a",
    b"\\",
)


def build_seeds():
    """Return the clean tables that are mutated: delimiters, quotes and encodings; workbooks."""
    rows = [["subject", "file", "note", "label"]]
    rows += [[f"p{n}", f"s {n}.nii.gz", '"a, b\nc"' if n % 4 == 0 else "4,9", "AD\u00e9"] for n in range(12)]
    texts = ["\n".join(mark.join(cells) for cells in rows) for mark in ",;\t"]
    seeds = [text.encode(code) for text, code in product(texts, ("utf-8", "utf-8-sig", "utf-16", "cp1252"))]
    book = openpyxl.Workbook()
    for number, cells in enumerate(rows):
        book.active.append([number * 1.5, *cells, number % 2 == 0, None])
    file = io.BytesIO()
    book.save(file)
    return [*seeds, *[file.getvalue()] * 4]


def mutate(content, rng):
    """Return the content with bytes changed, put in, repeated, moved or cut off."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        place, kind = int(rng.integers(0, len(data) + 1)), int(rng.integers(0, 5))
        if kind == 0:
            data[place : place + 1] = bytes([int(rng.integers(0, 256))])
        elif kind == 1:
            data[place:place] = INSERTS[int(rng.integers(0, len(INSERTS)))]
        elif kind == 2:
            data[place:place] = data[place : place + 40] * int(rng.integers(1, 200))
        elif kind == 3:
            data[place:place] = INSERTS[int(rng.integers(0, len(INSERTS)))] * int(rng.integers(1, 3000))
        else:
            del data[place : place + int(rng.integers(1, 60))]
    return bytes(data)


def mutate_workbook(content, rng):
    """Return a workbook with one of its parts mutated."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(changed, "w") as new:
        names = old.namelist()
        chosen = names[int(rng.integers(0, len(names)))]
        for name in names:
            part = old.read(name)
            new.writestr(name, mutate(part, rng) if name == chosen else part)
    return changed.getvalue()


def check(folder, count):
    """Read `count` mutated tables; return how many were read, how many refused, and the longest time."""
    rng, seeds, path = np.random.default_rng(5), build_seeds(), folder / "table"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tables, messages, longest = 0, [], 0.0
    for index in range(count):
        seed = seeds[index % len(seeds)]
        is_workbook = seed.startswith(b"PK") and rng.random() < 0.8
        path.write_bytes((mutate_workbook if is_workbook else mutate)(seed, rng))
        started = time.perf_counter()
        try:
            table = read_table(path)
            assert table.rows
            assert all(tuple(cells) == table.columns for cells in table.rows)
            assert all(0 < low < high for low, high in zip(table.lines, table.lines[1:], strict=False))
            tables += 1
        except ManifestError as error:
            messages.append(str(error))
        longest = max(longest, time.perf_counter() - started)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    figures = f"{tables} tables, {len(messages)} errors, longest {longest:.2f} s, {grown / 1024:.0f} MB"
    print(figures)  # noqa: T201 - shown by pytest -s
    assert all(str(path) in message for message in messages)
    assert longest < SECONDS
    assert grown < KILOBYTES
    return tables, len(messages)


def test_300_mutated_tables_are_read_or_refused(tmp_path):
    tables, errors = check(tmp_path, 300)
    assert tables > 30
    assert errors > 30


@pytest.mark.slow
def test_10000_mutated_tables_are_read_or_refused(tmp_path):
    check(tmp_path, 10_000)
