"""Rows that outlive a kill: each batch is written when it is scored, the table itself once, in the end."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from voxlift.app.files import write_rows

Row = Mapping[str, Any]
Key = tuple[str, str]


class PartialTable:
    """The rows of a table on their way, kept in a file beside it.

    The same question, asked again after a kill, finds the rows that were finished: the file's name holds a
    hash of the question. Rows with a reason are asked again, for their file may have been mended.

    Attributes:
        rows: those that are finished.
        written: when an earlier attempt last wrote, seconds since the epoch; 0 where there was none.

    Args:
        target: the table.
        columns: of every row; `subject`, `image` and `reason` are among them.
        question: all that the rows depend on, besides the scans.
    """

    def __init__(self, target: Path, *, columns: Sequence[str], question: Mapping[str, Any]) -> None:
        text = json.dumps({"columns": list(columns), **question}, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        self.target, self.columns = target, list(columns)
        self.path = target.with_name(f".{target.name}-{digest}.partial")
        self.written = self.path.stat().st_mtime if self.path.exists() else 0.0
        self.rows: dict[Key, dict[str, Any]] = {key_of(row): row for row in self._read() if not row["reason"]}
        self._write(list(self.rows.values()))

    def add(self, rows: Sequence[Row]) -> None:
        """Keep rows, in memory and on disk."""
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self.columns).writerows(rows)
        self.rows |= {key_of(row): dict(row) for row in rows}

    def finish(self, order: Sequence[Key]) -> list[dict[str, Any]]:
        """Write the table in this order, atomically, remove the partial file, and return the rows."""
        rows = [self.rows[key] for key in order]
        write_rows(self.target, [{column: row[column] for column in self.columns} for row in rows])
        self.path.unlink(missing_ok=True)
        return rows

    def _read(self) -> list[dict[str, Any]]:
        """The whole rows of an earlier attempt; a kill may have torn the last one."""
        if not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8", errors="replace")
        whole = text[: text.rfind("\n") + 1].splitlines(keepends=True)
        rows = csv.DictReader(whole)
        return [row for row in rows if None not in row and None not in row.values()]

    def _write(self, rows: Sequence[Row]) -> None:
        with self.path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)


def key_of(row: Row) -> Key:
    """What tells a row apart: the subject and its images."""
    return str(row["subject"]), str(row["image"])
