"""`subjects.csv`, `flow.csv` and `table1.csv`: who the subjects of a run are, and how many rows were used.

`subjects.csv` has a row for each volume: the columns of the user's table, and facts of the image files. So
subgroups can be scored later, and where the table is not at hand.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxlift.app.config import SPLIT_NAMES, EvaluationSettings, SettingsError, TrainSettings
from voxlift.app.config.checks import split_request
from voxlift.app.data.cohort import Cohort
from voxlift.app.data.sources import locate_table, table_options
from voxlift.app.evaluation.table_one import TableOneRow, Value, describe_columns, table_rows
from voxlift.app.files import read_rows, write_rows
from voxlift.app.runs.folder import RunFolder
from voxlift.app.tasks.base import task_of
from voxlift.data_pipelines.errors import ManifestError, closest_name, list_some
from voxlift.data_pipelines.files import IMAGE_SUFFIXES
from voxlift.data_pipelines.tables.manifest import Manifest, Record, load_manifest
from voxlift.data_pipelines.tables.reader import is_missing, is_number, read_table

OWN_COLUMNS = ("subject", "image", "split", "row")
AXES = ("depth", "height", "width")
HEADER_FACTS = (
    *(f"header.{name}" for name in ("spacing", "shape", "axcodes", "format", "folder")),
    *(f"header.{name}.{axis}" for name in ("spacing", "shape") for axis in AXES),
)
OPEN_ENDED = re.compile(r"([0-9.]+) ?\+|[<>≤≥]=? ?([0-9.]+)")
USUAL_NAMES = {
    "age": ("age", "agey", "ageyears", "ageatscan", "ageatvisit", "patientage"),
    "sex": ("sex", "gender", "patientsex"),
    "site": ("site", "siteid", "center", "centre", "hospital", "institution", "scanner", "scannerid"),
}


@dataclass(frozen=True)
class SubjectColumns:
    """The columns of a table of volumes.

    Attributes:
        rows: Image cell of a volume (see `Record.item`) to its cells by column, as text.
        names: Of the columns that the user's table has, in its order.
    """

    rows: Mapping[str, Mapping[str, str]]
    names: tuple[str, ...]

    def read(self, column: str, items: Iterable[str], *, setting: str = "evaluation.by") -> list[Value]:
        """Return the value of each volume: float where all cells are numbers, else text; nan where missing.

        Args:
            column: A column of the table, or a fact of the files, `header.spacing` and so on.
            items: Image cells of the volumes.
            setting: Names the column, for the message.

        Raises:
            SettingsError: There is no such column.
        """
        known = list(dict.fromkeys(name for row in self.rows.values() for name in row))
        if column not in known:
            close = closest_name(column, known)
            hint = f" Did you mean {close}?" if close else ""
            raise SettingsError(
                f"{setting}: there is no column {column}.{hint} The columns are {', '.join(known) or 'none'}."
            )
        return parse_cells([self.rows.get(item, {}).get(column, "") for item in items])


def collect_columns(rows: Sequence[Mapping[str, str]]) -> SubjectColumns:
    """Return rows of `subjects.csv` as columns; spacing and shape also as one text of three numbers."""
    collected = {}
    for row in rows:
        own = {name: cell for name, cell in row.items() if name not in OWN_COLUMNS}
        for name in ("spacing", "shape"):
            sides = [own.get(f"header.{name}.{axis}", "") for axis in AXES]
            own |= {f"header.{name}": "x".join(sides)} if all(sides) else {}
        collected[row["image"]] = own
    names = [name for name in (rows[0] if rows else ()) if name not in OWN_COLUMNS]
    return SubjectColumns(collected, tuple(name for name in names if not name.startswith("header.")))


def find_usual_columns(names: Iterable[str], kinds: Sequence[str] = tuple(USUAL_NAMES)) -> list[str]:
    """Return the columns of age, sex and site among the names, by their usual spellings.

    >>> find_usual_columns(["participant_id", "Gender", "age_at_scan", "label"])
    ['age_at_scan', 'Gender']

    Args:
        names: Of all columns.
        kinds: Some keys of `USUAL_NAMES`.
    """
    plain = {name: "".join(filter(str.isalpha, name.casefold())) for name in names}
    return [name for kind in kinds for name, text in plain.items() if text in USUAL_NAMES[kind]]


def parse_cells(cells: Sequence[str]) -> list[Value]:
    """Return cells as numbers if all that are not missing can be, else as text; nan where missing.

    Open ends, as in ages that are not given exactly (`89+`, `>89`), count as the number that they begin with.

    >>> parse_cells(["1.5", "n/a", "89+"]), parse_cells(["1.5", "high"])
    ([1.5, nan, 89.0], ['1.5', 'high'])
    """
    known = [cell for cell in cells if not is_missing(cell)]
    closed = {cell: _close_end(cell) for cell in known} if any(map(is_number, known)) else {}
    is_numeric = all(is_number(closed.get(cell, cell)) for cell in known)
    return [math.nan if is_missing(cell) else float(closed[cell]) if is_numeric else cell for cell in cells]


def _close_end(cell: str) -> str:
    """Return an open-ended number without the sign that opens it; any other cell as it is."""
    found = OPEN_ENDED.fullmatch(cell)
    return (found[1] or found[2]) if found else cell


def saved_name(column: str) -> str:
    """Return the name of a table's column in `subjects.csv`, beside the columns that are not the table's."""
    return f"table.{column}" if column in OWN_COLUMNS or column.startswith("header.") else column


MAX_COLUMNS = 200
MAX_CELL = 200  # characters


def write_subjects(cohort: Cohort, run: RunFolder, settings: TrainSettings) -> None:
    """Write `subjects.csv`, `flow.csv` and `table1.csv` of a run.

    Raises:
        SettingsError: `evaluation.describe` names a column that the table lacks.
    """
    manifest, columns = read_table_columns(settings)
    rows = build_subject_rows(cohort, columns)
    subjects = collect_columns(rows)
    table = describe_subjects(
        subjects,
        [(row["subject"], row["image"], row["split"]) for row in rows],
        named=settings.evaluation.describe,
    )
    write_rows(run.subjects, rows)
    write_rows(run.flow, build_flow(cohort, manifest))
    if table:
        write_rows(run.table_one, table_rows(table))


def check_reported_columns(settings: TrainSettings) -> None:
    """Pass when the table has the columns that `evaluation.by` and `evaluation.describe` name.

    Raises:
        SettingsError: It lacks one.
        ManifestError: The table cannot be read.
    """
    wanted = [(split_request(one)[0], "evaluation.by") for one in settings.evaluation.by]
    wanted += [(name, "evaluation.describe") for name in settings.evaluation.describe]
    if not wanted:
        return
    path = Path(str(locate_table(settings.data).table)).expanduser()
    rows = {}
    if not path.is_dir():
        table = read_table(path)
        rows = {
            str(line): {saved_name(name): table.with_decimal_point(cell) for name, cell in cells.items()}
            for line, cells in zip(table.lines, table.rows, strict=True)
        }
    known = SubjectColumns({"": dict.fromkeys(HEADER_FACTS, ""), **rows}, ())
    for name, setting in wanted:
        known.read(name, (), setting=setting)
    for request in settings.evaluation.by:
        refuse_cut_text(request, known.read(split_request(request)[0], rows))


def refuse_cut_text(request: str, values: Sequence[Value]) -> None:
    """Pass when the values of an entry of `evaluation.by` with edges are numbers.

    Raises:
        SettingsError: They are text, with some of it.
    """
    column, edges = split_request(request)
    texts = [value for value in values if isinstance(value, str)]
    if edges and texts:
        other = list_some(map(repr, dict.fromkeys(text for text in texts if not is_number(text))), limit=3)
        raise SettingsError(
            f"evaluation.by={request}: expected numbers in the column {column}; it also holds {other}. Leave "
            "the edges out, or make these cells numbers or empty."
        )


def check_saved_columns(
    run: RunFolder, settings: TrainSettings, evaluation: EvaluationSettings
) -> SubjectColumns | None:
    """Return the columns of a finished run if they have those of `evaluation.by`; None without groups.

    Raises:
        SettingsError: A column is missing, or as in `read_subjects`.
    """
    if not evaluation.by:
        return None
    columns = read_subjects(run, settings)
    for request in evaluation.by:
        columns.read(split_request(request)[0], ())
    return columns


def read_subjects(run: RunFolder, settings: TrainSettings) -> SubjectColumns:
    """Return the columns of a run's subjects; of a run without `subjects.csv` those of its table, if present.

    Raises:
        SettingsError: The run has no `subjects.csv`, and its table cannot be read.
    """
    if run.subjects.exists():
        return collect_columns(read_rows(run.subjects))
    try:
        _, columns = read_table_columns(settings)
    except (ManifestError, OSError) as error:
        raise SettingsError(
            f"{run.path}: its version saved no columns of the table (subjects.csv), and the table cannot be "
            f"read: {error}"
        ) from error
    return columns


def read_table_columns(settings: TrainSettings) -> tuple[Manifest, SubjectColumns]:
    """Return the manifest of the settings, and the columns of its table; none for a folder per class.

    Raises:
        ManifestError: The table cannot be used.
    """
    located = locate_table(settings.data)
    manifest = load_manifest(str(located.table), table_options(located, task_of(settings)))
    return manifest, select_table_columns(manifest, needed=settings.model.columns)


def select_table_columns(manifest: Manifest, *, needed: Sequence[str] = ()) -> SubjectColumns:
    """Return the columns of the table of a manifest; none for a folder per class.

    Args:
        manifest: Of the table.
        needed: Columns that are kept however many there are.

    Raises:
        ManifestError: The table cannot be read.
    """
    if manifest.source.is_dir():
        return SubjectColumns({}, ())
    table = read_table(manifest.source)
    more = [name for name in needed if name in table.columns[MAX_COLUMNS:]]
    names = (*table.columns[:MAX_COLUMNS], *more)
    cells_of = dict(zip(table.lines, table.rows, strict=True))
    rows = {
        record.item: {
            saved_name(name): table.with_decimal_point(cells_of[record.row][name])[:MAX_CELL]
            for name in names
        }
        for record in manifest.records
    }
    return SubjectColumns(rows, tuple(map(saved_name, names)))


def describe_table(
    manifest: Manifest, *, named: Sequence[str] = ()
) -> tuple[list[TableOneRow], list[dict[str, str | int]]]:
    """Return the table of subjects and the flow of rows of a table that has not been split yet.

    The columns are its own splits where it has some, else the classes.

    Args:
        manifest: What the table holds.
        named: Further columns, see `describe_subjects`.

    Raises:
        SettingsError: There is no such column.
    """
    has_splits = any(record.split for record in manifest.records)
    groups = SPLIT_NAMES if has_splits else manifest.classes if manifest.target == "classes" else ("all",)
    volumes = [
        (record.subject, record.item, _group_of(record, manifest, groups)) for record in manifest.records
    ]
    rows = describe_subjects(select_table_columns(manifest), volumes, named=named, order=groups)
    used = [(subject, group) for subject, _, group in volumes]
    return rows, _build_flow_rows(manifest.left_out, used, groups)


def _group_of(record: Record, manifest: Manifest, groups: Sequence[str]) -> str:
    if groups is SPLIT_NAMES:
        return record.split or ""
    return groups[record.label] if groups is manifest.classes else groups[0]


def build_subject_rows(cohort: Cohort, columns: SubjectColumns) -> list[dict[str, str]]:
    """Return the rows of `subjects.csv`: subject, image, split, row, the table's columns, facts of files."""
    folders = _relative_folders([record.images[0] for record in cohort.records])
    every = zip(cohort.records, cohort.splits, cohort.load_metadata(), folders, strict=True)
    rows = []
    for record, split, metadata, folder in every:
        summary, cell = metadata.summary, record.item
        row = {"subject": record.subject, "image": cell, "split": split, "row": str(record.row)}
        row |= columns.rows.get(cell, {})
        for name, values in (("spacing", summary.spacing), ("shape", summary.shape)):
            row |= {f"header.{name}.{axis}": f"{value:.5g}" for axis, value in zip(AXES, values, strict=True)}
        row |= {"header.axcodes": summary.axcodes, "header.format": _find_suffix(record.images[0])}
        rows.append(row | {"header.folder": folder})
    return rows


def build_flow(cohort: Cohort, manifest: Manifest) -> list[dict[str, str | int]]:
    """Return the rows of `flow.csv`: rows read, left out by reason, and used, with the subjects of those.

    Args:
        cohort: What is used.
        manifest: What the table holds.
    """
    unusable = len(cohort.left_out)
    outside = len(manifest.records) - len(cohort.records) - unusable
    reasons = {**manifest.left_out, "in the outer test fold": outside, "file cannot be used": unusable}
    pairs = zip(cohort.records, cohort.splits, strict=True)
    return _build_flow_rows(reasons, [(record.subject, split) for record, split in pairs], cohort.present)


def _build_flow_rows(
    reasons: Mapping[str, int], used: Sequence[tuple[str, str]], groups: Sequence[str]
) -> list[dict[str, str | int]]:
    """Return the rows of `flow.csv`.

    Args:
        reasons: Why rows were left out, with their number.
        used: Subject and group of each row that is used.
        groups: In the order of their rows, after one for all of them.
    """
    read = sum(reasons.values()) + len(used)
    rows: list[dict[str, str | int]] = [{"step": "read", "reason": "", "rows": read, "subjects": ""}]
    rows += [
        {"step": "left out", "reason": reason, "rows": count, "subjects": ""}
        for reason, count in reasons.items()
        if count
    ]
    for name in (None, *groups):
        own = [subject for subject, group in used if name in (None, group)]
        if own:
            rows.append({"step": "used", "reason": name or "", "rows": len(own), "subjects": len(set(own))})
    return rows


def describe_subjects(
    columns: SubjectColumns,
    volumes: Sequence[tuple[str, str, str]],
    *,
    named: Sequence[str] = (),
    order: Sequence[str] = SPLIT_NAMES,
) -> list[TableOneRow]:
    """Return the table of subjects: age, sex and site by their usual names, then the named columns.

    A subject counts once in each group, with the cells of its first volume.

    Args:
        columns: Of the volumes.
        volumes: Subject, image and group (such as the split) of each.
        named: Further columns.
        order: The groups; those without subjects are left out.

    Raises:
        SettingsError: There is no such column.
    """
    first: dict[tuple[str, str], str] = {}
    for subject, image, group in volumes:
        first.setdefault((subject, group), image)
    present = [group for group in order if any(group == own for _, own in first)]
    chosen = list(dict.fromkeys([*find_usual_columns(columns.names), *named]))
    values = {name: columns.read(name, first.values(), setting="evaluation.describe") for name in chosen}
    is_empty = not values or not present
    return [] if is_empty else describe_columns(values, [group for _, group in first], present)


def describe_with_external(
    runs: Sequence[RunFolder],
    settings: TrainSettings,
    external: SubjectColumns,
    cohort: Cohort,
    *,
    named: Sequence[str] = (),
) -> list[TableOneRow]:
    """Return the table of subjects of a run's splits beside the external subjects.

    Only columns of both tables are compared; without those of the run, the external ones stand alone.

    Args:
        runs: The run, or none.
        settings: Of the run.
        external: Columns of the external subjects.
        cohort: The external volumes.
        named: Further columns, see `describe_subjects`.
    """
    volumes = [
        (record.subject, record.item, split)
        for record, split in zip(cohort.records, cohort.splits, strict=True)
    ]
    rows, names = dict(external.rows), external.names
    for run in runs:
        try:
            own = read_subjects(run, settings)
        except SettingsError:
            continue
        shared = {name for row in own.rows.values() for name in row}
        names = tuple(name for name in names if name in shared) if shared else names
        rows = {**own.rows, **rows}
        volumes = [(row["subject"], row["image"], row["split"]) for row in read_rows(run.splits)] + volumes
    order = (*SPLIT_NAMES, *dict.fromkeys(cohort.splits))
    return describe_subjects(SubjectColumns(rows, names), volumes, named=named, order=order)


def _find_suffix(image: Path) -> str:
    name = image.name.lower()
    found = [suffix for suffix in IMAGE_SUFFIXES if name.endswith(suffix)]
    return max(found, key=len) if found else image.suffix.lower() or "folder"


def _relative_folders(images: Sequence[Path]) -> list[str]:
    """Return the folder of each image, relative to the folder that all are in."""
    folders = [str(image.absolute().parent) for image in images]
    common = os.path.commonpath(folders) if folders else ""
    return [os.path.relpath(folder, common) for folder in folders]
