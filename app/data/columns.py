"""Columns of the table as numbers: fitted on training subjects, kept in a run, applied to new subjects."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.data.sources import check_columns, locate_table
from voxlift.app.tasks.base import task_of
from voxlift.data_pipelines.errors import list_some
from voxlift.data_pipelines.tables.manifest import Record
from voxlift.data_pipelines.tables.reader import is_missing, is_number, parse_limit, read_columns

log = logging.getLogger("voxlift")

Cells = NDArray[np.object_]  # [N, columns]: text, or float where a column holds numbers; nan where missing

MISSING_WORD = "(missing)"
MANY_WORDS = 20  # of a column, before a warning where they are about as many as the subjects


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers: made symmetric and brought to one scale (Yeo-Johnson, then standardised).

    Attributes:
        name: Of the column.
        median: Of the training subjects, in place of a gap.
        power: The exponent of Yeo and Johnson, lambda.
        mean: Of the transformed numbers of the training subjects.
        scale: Their standard deviation.
        low: The smallest number of the training subjects.
        high: The largest.
        gap: Values of the feature that marks gaps, without one and at one; None where training has no gaps.

    Source:
        Yeo and Johnson (2000), A new family of power transformations, doi:10.1093/biomet/87.4.954.
    """

    name: str
    median: float
    power: float
    mean: float
    scale: float
    low: float
    high: float
    gap: tuple[float, float] | None = None

    def standardise(self, cells: Sequence[Any]) -> NDArray[np.float64]:
        """Return the numbers on the scale of the training subjects; a gap is the median."""
        from scipy.stats import yeojohnson

        values = np.array([_number(cell) for cell in cells], np.float64)
        filled = np.where(np.isnan(values), self.median, values)
        return np.asarray((yeojohnson(filled, self.power) - self.mean) / self.scale, np.float64)

    def mark_gaps(self, cells: Sequence[Any]) -> NDArray[np.float64]:
        """Return the values of the feature that marks gaps."""
        present, absent = self.gap or (0.0, 0.0)
        return np.array([absent if math.isnan(_number(cell)) else present for cell in cells], np.float64)


@dataclass(frozen=True)
class WordColumn:
    """A column of words, one-hot encoded; a word that training has not seen is none of them.

    Attributes:
        name: Of the column.
        words: Of the training subjects, sorted; a gap is a word of its own.
    """

    name: str
    words: tuple[str, ...]

    def one_hot(self, cells: Sequence[Any]) -> NDArray[np.float64]:
        """Return 1 for the word of each cell and 0 for the others, [N, words]."""
        words = [_word(cell) for cell in cells]
        return np.array([[word == known for known in self.words] for word in words], np.float64).reshape(
            len(cells), len(self.words)
        )


@dataclass(frozen=True)
class ColumnEncoder:
    """How cells of the table become features, fitted on training subjects."""

    columns: tuple[NumberColumn | WordColumn, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns, in the order of the cells."""
        return tuple(column.name for column in self.columns)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features: numbers, marks of gaps, then words, as `age`, `age missing`, `sex=F`."""
        numbers = [column for column in self.columns if isinstance(column, NumberColumn)]
        return (
            *(column.name for column in numbers),
            *(f"{column.name} missing" for column in numbers if column.gap is not None),
            *(
                f"{one.name}={word}"
                for one in self.columns
                if isinstance(one, WordColumn)
                for word in one.words
            ),
        )

    def encode(self, cells: Cells) -> NDArray[np.float64]:
        """Return the features [N, F] of cells [N, columns]."""
        pairs = list(zip(self.columns, cells.T, strict=True))
        numbers = [(column, own) for column, own in pairs if isinstance(column, NumberColumn)]
        parts = [column.standardise(own)[:, None] for column, own in numbers]
        parts += [column.mark_gaps(own)[:, None] for column, own in numbers if column.gap is not None]
        parts += [column.one_hot(own) for column, own in pairs if isinstance(column, WordColumn)]
        return np.concatenate(parts, axis=1)

    def encode_gaps(self, count: int) -> NDArray[np.float64]:
        """Return the features [count, F] of subjects of whom every cell is missing."""
        return self.encode(np.full((count, len(self.columns)), math.nan, object))

    def find_unusual(self, cells: Sequence[Any]) -> list[str]:
        """Return what training has not seen of one subject's cells, a phrase for each."""
        phrases = [_describe_unseen(*pair) for pair in zip(self.columns, cells, strict=True)]
        return [phrase for phrase in phrases if phrase]

    def as_json(self) -> list[dict[str, Any]]:
        """Return the columns in order, each with its kind, as `read_encoder` reads them."""
        kinds = {NumberColumn: "number", WordColumn: "words"}
        return [{"kind": kinds[type(column)], **asdict(column)} for column in self.columns]


@dataclass(frozen=True, eq=False)
class JoinedColumns:
    """The columns of a cohort as the second input of a network.

    Attributes:
        encoder: Fitted on the training subjects.
        features: float32 [N, F] of every record.
    """

    encoder: ColumnEncoder
    features: NDArray[np.float32]


def read_encoder(saved: Sequence[Mapping[str, Any]]) -> ColumnEncoder:
    """Return what `ColumnEncoder.as_json` gave.

    Raises:
        KeyError, TypeError, ValueError: It is damaged.
    """
    columns: list[NumberColumn | WordColumn] = []
    for one in saved:
        values = {key: value for key, value in one.items() if key != "kind"}
        if one["kind"] == "number":
            gap, name = values.pop("gap", None), str(values.pop("name"))
            marks = None if gap is None else (float(gap[0]), float(gap[1]))
            numbers: dict[str, Any] = {key: float(value) for key, value in values.items()}
            columns.append(NumberColumn(name, **numbers, gap=marks))
        else:
            columns.append(WordColumn(str(values["name"]), tuple(map(str, values["words"]))))
    if not columns:
        raise ValueError("there is no column")
    return ColumnEncoder(tuple(columns))


def fit_encoder(cells: Cells, names: Sequence[str]) -> ColumnEncoder:
    """Fit to the cells of training subjects alone; they also decide which columns hold numbers.

    Args:
        cells: [N, columns] of the training subjects.
        names: Of the columns.
    """
    return ColumnEncoder(tuple(_fit_column(name, own) for name, own in zip(names, cells.T, strict=True)))


def _fit_column(name: str, cells: Sequence[Any]) -> NumberColumn | WordColumn:
    known = [cell for cell in cells if not _is_gap(cell)]
    plain = [cell for cell in known if not isinstance(cell, str) or is_number(cell)]
    if len(plain) >= len(known) / 2 and all(math.isfinite(_number(cell)) for cell in known):
        return _fit_number(name, np.array([_number(cell) for cell in cells], np.float64))
    if len(plain) > len(known) / 2:
        others = dict.fromkeys(str(cell) for cell in known if not math.isfinite(_number(cell)))
        log.warning(
            "The column %s counts as words, since these cells are no numbers: %s. Correct or empty them, and "
            "it counts as a number.",
            name,
            list_some(map(repr, others)),
        )
    words = tuple(sorted({_word(cell) for cell in cells}))
    if len(words) > max(MANY_WORDS, len(cells) / 2):
        log.warning(
            "The column %s has %d words for %d training subjects: a model can learn who they are by it.",
            name,
            len(words),
            len(cells),
        )
    return WordColumn(name, words)


def _fit_number(name: str, values: NDArray[np.float64]) -> NumberColumn:
    from sklearn.preprocessing import PowerTransformer

    missing = np.isnan(values)
    known = values[~missing] if not missing.all() else np.zeros(1)  # nothing is known of an empty column
    median = float(np.median(known))
    power, mean, scale = _fit_scale(np.where(missing, median, values))
    gap = None
    if missing.any():
        marks = PowerTransformer().fit_transform(missing[:, None].astype(np.float64))[:, 0]
        gap = (float(marks[~missing][0]) if not missing.all() else 0.0, float(marks[missing][0]))
    return NumberColumn(name, median, power, mean, scale, float(known.min()), float(known.max()), gap)


def _fit_scale(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return exponent, mean and standard deviation of numbers."""
    from scipy.stats import yeojohnson
    from sklearn.preprocessing import PowerTransformer

    transformer = PowerTransformer(standardize=False)
    transformer.fit(values[:, None])
    power = float(transformer.lambdas_[0])
    if not math.isfinite(power):
        power = 1.0  # the same number for all
    transformed = np.asarray(yeojohnson(values, power), np.float64)
    return power, float(transformed.mean()), float(transformed.std()) or 1.0


def _is_gap(cell: Any) -> bool:  # noqa: ANN401 - text or float
    return is_missing(cell) if isinstance(cell, str) else math.isnan(cell)


def _number(cell: Any) -> float:  # noqa: ANN401 - text or float
    return parse_limit(cell) if isinstance(cell, str) else float(cell)


def _word(cell: Any) -> str:  # noqa: ANN401 - text or float
    return MISSING_WORD if _is_gap(cell) else str(cell)


def _describe_unseen(column: NumberColumn | WordColumn, cell: Any) -> str:  # noqa: ANN401 - text or float
    """Return what training has not seen of a cell; empty for nothing."""
    if isinstance(column, WordColumn):
        if _word(cell) in column.words:
            return ""
        return f"{column.name} is missing" if _is_gap(cell) else f"{column.name} {cell} is new"
    number = _number(cell)
    if math.isnan(number):
        reason = "is missing" if _is_gap(cell) else f"{cell} is no number"
        return "" if column.gap is not None and _is_gap(cell) else f"{column.name} {reason}"
    if column.low <= number <= column.high:
        return ""
    return f"{column.name} {number:g} outside {column.low:g} to {column.high:g}"


def read_cells(settings: TrainSettings, records: Sequence[Record]) -> Cells:
    """Return the cells [N, columns] of `model.columns` for each record, see `read_columns`.

    Raises:
        SettingsError: The label is among the columns.
        ManifestError: The table lacks a column, or there is no table.
    """
    data = locate_table(settings.data)
    _refuse_label(settings)
    return read_columns(str(data.table), [record.row for record in records], settings.model.columns)


def fit_joined(
    settings: TrainSettings, records: Sequence[Record], splits: Sequence[str]
) -> JoinedColumns | None:
    """Return the columns as a second input, fitted on the training records; None where a model takes none.

    Raises:
        SettingsError, ManifestError: As in `read_cells`.
    """
    if not settings.model.join_columns:
        return None
    cells = read_cells(settings, records)
    encoder = fit_encoder(cells[np.array(splits) == "train"], settings.model.columns)
    return apply_encoder(encoder, cells)


def apply_encoder(encoder: ColumnEncoder, cells: Cells) -> JoinedColumns:
    """Return cells [N, columns] of a cohort as a second input."""
    return JoinedColumns(encoder, encoder.encode(cells).astype(np.float32))


def check_model_columns(settings: TrainSettings) -> None:
    """Pass when the table has the columns that `model.columns` names, and the label is not among them.

    Raises:
        SettingsError: The label is among them.
        ManifestError: The table lacks a column, or cannot be read.
    """
    check_columns(settings.data, settings.model.columns)
    _refuse_label(settings)


def _refuse_label(settings: TrainSettings) -> None:
    data = locate_table(settings.data)
    labels = task_of(settings).label_columns(data)
    named = [column for column in settings.model.columns if column in labels]
    if named:
        raise SettingsError(f"model.columns: {', '.join(named)} is the label itself; leave it out.")
