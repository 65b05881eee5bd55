"""The loop of a prediction: scans in, rows out, batch by batch, one bad file no reason to stop."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from voxlift.app.files import write_rows
from voxlift.app.inference.ensemble import Ensemble, decide, score_batch
from voxlift.app.inference.maps import Explaining, explain_scan
from voxlift.app.inference.scans import Prepared, map_in_order, prepare_scan, take_batches
from voxlift.app.inference.test_time_augmentation import View
from voxlift.data_pipelines.cache.ranges import outside_range
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.scans import Scan
from voxlift.data_pipelines.tables.images import join_images

log = logging.getLogger("voxlift")

SAID_AT_MOST = 10  # scans whose trouble is printed; the table holds it all


@dataclass
class Predictor:
    """All that turns scans into rows.

    Attributes:
        ensemble: the runs.
        networks: theirs.
        views: test-time augmentation, the plain view first.
        batch_size: scans scored together.
        workers: threads that read and prepare; 0 is one per CPU.
        explaining: how maps are made; None makes none.
    """

    ensemble: Ensemble
    networks: Sequence[Any]
    views: Sequence[View]
    batch_size: int
    workers: int = 0
    explaining: Explaining | None = None
    _said: dict[str, int] = field(default_factory=dict)

    @cached_property
    def scorers(self) -> tuple[Any, ...]:
        """What scores in the networks' place, faster; the networks themselves are what is explained."""
        from voxlift.models.folding import fold_normalisation

        return tuple(fold_normalisation(network) for network in self.networks)

    @property
    def columns(self) -> list[str]:
        """Of every row, in order."""
        classes = self.ensemble.classes
        return [
            "subject",
            "image",
            "decision",
            *(f"p_{name}" for name in classes),
            *(f"calibrated_{name}" for name in classes),
            *(["spread"] if len(self.ensemble.members) > 1 else []),
            *(["map", "picture", "agreement"] if self.explaining else []),
            "warning",
            "reason",
        ]

    def predict(
        self, scans: Sequence[Scan], table: PartialTable, *, advance: Callable[[], None] = lambda: None
    ) -> None:
        """Score every scan that the table does not hold yet, and add its row."""
        numbered = list(enumerate(scans, start=1))
        todo = [(number, scan) for number, scan in numbered if not _is_done(scan, table)]
        for _ in range(len(scans) - len(todo)):
            advance()
        shape = tuple(self.networks[0].input_shape[1:])
        prepare = partial(_prepare_numbered, settings=self.ensemble.preprocess, shape=shape)
        ready = map_in_order(prepare, todo, workers=self.workers, ahead=2 * self.batch_size)
        for batch in take_batches(ready, self.batch_size):
            table.add(self.rows_of(batch))
            for _ in batch:
                advance()

    def rows_of(self, batch: Sequence[tuple[int, Prepared]]) -> list[dict[str, Any]]:
        """The rows of a batch, in its order."""
        usable = [prepared for _, prepared in batch if prepared.voxels is not None]
        answers = iter(self._answers(usable))
        return [
            self._row(number, prepared, next(answers) if prepared.voxels is not None else {})
            for number, prepared in batch
        ]

    def _answers(self, usable: Sequence[Prepared]) -> list[dict[str, Any]]:
        """Per usable scan the cells of its scores, and the raw numbers that an explanation needs."""
        if not usable:
            return []
        voxels = np.stack([prepared.voxels for prepared in usable if prepared.voxels is not None])
        answer = score_batch(self.ensemble, self.scorers, voxels, self.views)
        decisions = decide(self.ensemble, answer.probabilities)
        return [
            {"plain": plain, "calibrated": calibrated, "spread": float(spread), "decided": int(decided)}
            for plain, calibrated, spread, decided in zip(
                answer.probabilities, answer.calibrated, answer.spread, decisions, strict=True
            )
        ]

    def _row(self, number: int, prepared: Prepared, answer: dict[str, Any]) -> dict[str, Any]:
        row: dict[str, Any] = dict.fromkeys(self.columns, "")
        row |= dict(zip(("subject", "image"), scan_key(prepared.scan), strict=True))
        reason = prepared.reason
        if not reason and not np.isfinite(answer["plain"]).all():
            reason = f"{prepared.scan.images[0]}: the network gave no finite score"
        if reason:
            self._say("cannot be scored", reason)
            return row | {"reason": reason}
        classes = self.ensemble.classes
        row["decision"] = classes[answer["decided"]]
        row |= {f"p_{name}": float(p) for name, p in zip(classes, answer["plain"], strict=True)}
        row |= {f"calibrated_{name}": float(p) for name, p in zip(classes, answer["calibrated"], strict=True)}
        if "spread" in row:
            row["spread"] = answer["spread"]
        return row | self._explained(number, prepared, answer)

    def _explained(self, number: int, prepared: Prepared, answer: dict[str, Any]) -> dict[str, Any]:
        warnings = self._outside(prepared)
        if warnings:
            self._say("outside what training saw", f"{prepared.scan.subject}: {'; '.join(warnings)}")
        if self.explaining is None:
            return {"warning": "; ".join(warnings)}
        cells = explain_scan(
            prepared,
            how=self.explaining,
            ensemble=self.ensemble,
            networks=self.networks,
            decided=answer["decided"],
            probability=answer["plain"],
            number=number,
        )
        return cells | {"warning": "; ".join([*warnings, *filter(None, [cells.get("warning", "")])])}

    def _outside(self, prepared: Prepared) -> list[str]:
        """What is unlike any member's training, each phrase once."""
        found: dict[str, None] = {}
        for member in self.ensemble.members:
            if member.seen is not None and prepared.sketch is not None:
                found |= dict.fromkeys(outside_range(prepared.sketch, member.seen))
        return list(found)

    def _say(self, kind: str, text: str) -> None:
        self._said[kind] = self._said.get(kind, 0) + 1
        if self._said[kind] <= SAID_AT_MOST:
            log.info("%s: %s", kind[0].upper() + kind[1:], text)
        elif self._said[kind] == SAID_AT_MOST + 1:
            log.info("%s: more scans, named in the table alone", kind[0].upper() + kind[1:])


def scan_key(scan: Scan) -> Key:
    """Subject and images of a scan, as its row names them."""
    return scan.subject, join_images(scan.images)


def _is_done(scan: Scan, table: PartialTable) -> bool:
    """Whether an earlier attempt scored the scan, and nobody changed its images since."""
    if scan_key(scan) not in table.rows:
        return False
    try:
        return all(image.stat().st_mtime <= table.written for image in scan.images)
    except OSError:
        return False


def _prepare_numbered(
    item: tuple[int, Scan],
    *,
    settings: Preprocess,
    shape: tuple[int | None, ...],
) -> tuple[int, Prepared]:
    number, scan = item
    return number, prepare_scan(scan, settings, shape=shape)


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
