"""Audit findings and numbers: their distribution, unknown cells, and each as classes for the other checks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.audit.findings import MIN_SUBJECTS_PER_CLASS, Finding
from voxlift.data_pipelines.tables.manifest import Manifest, Record

OUTCOMES = ("absent", "present")
MANY_UNKNOWN = 0.5  # a larger share of unknown cells is a warning


def label_texts(manifest: Manifest) -> tuple[list[int | None], tuple[str, ...]]:
    """Return the label of each record as an index into texts, and these texts.

    Two records have the same index where the table says the same about them.
    """
    if manifest.target == "classes":
        return [record.label for record in manifest.records], manifest.classes
    own = [_format_targets(manifest, record) for record in manifest.records]
    texts = tuple(dict.fromkeys(own))
    index = {text: position for position, text in enumerate(texts)}
    return [index[text] for text in own], texts


def class_labels(manifest: Manifest) -> Iterator[tuple[list[int | None], tuple[str, ...]]]:
    """Yield the labels as class indices [records], with class names, for the checks that compare classes.

    Each finding is two classes, without the records where it is unknown; a number is two, divided at its
    median.
    """
    if manifest.target == "classes":
        yield [record.label for record in manifest.records], manifest.classes
    elif manifest.target == "findings":
        for index, name in enumerate(manifest.classes):
            values = [record.targets[index] for record in manifest.records]
            known = [None if math.isnan(value) else int(value) for value in values]
            if len(set(known) - {None}) == len(OUTCOMES):
                yield known, tuple(f"{name} {outcome}" for outcome in OUTCOMES)
    else:
        values = [record.targets[0] for record in manifest.records]
        median, name = float(np.median(values)), manifest.classes[0]
        above: list[int | None] = [int(value > median) for value in values]
        if any(above):
            yield above, (f"{name} up to {median:.4g}", f"{name} above {median:.4g}")


def page_groups(manifest: Manifest) -> tuple[list[int], tuple[str, ...]]:
    """Return a group for each record, and the names of the groups, for tables and figures of files.

    Classes are themselves; a number has two groups, divided at its median; of findings, the group of a record
    is its rarest one.
    """
    if manifest.target == "findings":
        targets = np.array([record.targets for record in manifest.records])
        order = np.argsort((targets == 1).sum(axis=0), kind="stable")
        present = targets[:, order] == 1
        rarest = np.where(present.any(axis=1), order[present.argmax(axis=1)] + 1, 0)
        return rarest.tolist(), ("none known", *manifest.classes)
    for labels, names in class_labels(manifest):
        return [label or 0 for label in labels], names
    return [0] * len(manifest.records), manifest.classes[:1]


def describe_targets(manifest: Manifest) -> list[dict[str, object]]:
    """Return rows of the distribution of findings or a number in each split; none for classes."""
    splits = dict.fromkeys(record.split or "all" for record in manifest.records)
    rows: list[dict[str, object]] = []
    for split in splits:
        own = [record for record in manifest.records if (record.split or "all") == split]
        if manifest.target == "number":
            values = np.array([record.targets[0] for record in own])
            low, first, median, third, high = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()
            spread = {"minimum": low, "quartile 1": first, "median": median, "quartile 3": third}
            rows.append({"split": split, "rows": len(own), **spread, "maximum": high})
        elif manifest.target == "findings":
            for index, name in enumerate(manifest.classes):
                values = np.array([record.targets[index] for record in own])
                counts = {word: int((values == value).sum()) for value, word in enumerate(OUTCOMES)}
                unknown = int(np.isnan(values).sum())
                rows.append({"finding": name, "split": split, **counts, "unknown": unknown})
    return rows


def check_targets(manifest: Manifest, splits: Sequence[str | None]) -> Iterator[Finding]:
    """Yield what spoils or limits a training on findings or a number, and their distribution.

    Args:
        manifest: The records.
        splits: One per record; None where none is assigned yet.
    """
    if manifest.target == "number":
        yield from _check_number(manifest, splits)
        return
    for index, name in enumerate(manifest.classes):
        yield from _check_finding(name, index, manifest.records, splits)


def _check_number(manifest: Manifest, splits: Sequence[str | None]) -> Iterator[Finding]:
    name = manifest.classes[0]
    values = np.array([record.targets[0] for record in manifest.records])
    if np.ptp(values) == 0:
        message = f"{name} is {values[0]:.4g} for every subject: there is nothing to predict"
        yield Finding("constant_target", "error", message, (), spoils=True)
        return
    by_split = {
        split or "all": np.array([value for value, own in zip(values, splits, strict=True) if own == split])
        for split in dict.fromkeys(splits)
    }
    listed = "; ".join(f"{split}: {_describe(own)}" for split, own in by_split.items())
    yield Finding("target_distribution", "note", f"{name}: {listed}", ())
    yield from _check_range(name, by_split)


def _check_range(name: str, by_split: dict[str, NDArray[np.float64]]) -> Iterator[Finding]:
    """Yield the splits with numbers outside of those that are trained on: a network extrapolates poorly."""
    training = by_split.get("train")
    if training is None:
        return
    low, high = training.min(), training.max()
    for split, own in by_split.items():
        outside = int(((own < low) | (own > high)).sum())
        if outside:
            message = (
                f"{name}: {outside} of {len(own)} values of {split} lie outside of the training range "
                f"{low:.4g} to {high:.4g}"
            )
            yield Finding("target_range", "warning", message, ())


def _check_finding(
    name: str, index: int, records: Sequence[Record], splits: Sequence[str | None]
) -> Iterator[Finding]:
    values = np.array([record.targets[index] for record in records])
    unknown = int(np.isnan(values).sum())
    if unknown:
        severity = "warning" if unknown > MANY_UNKNOWN * len(values) else "note"
        yield Finding("unknown_cells", severity, f"{name}: {unknown} of {len(values)} cells are empty", ())
    for outcome, word in enumerate(OUTCOMES):
        split_of = {
            record.subject: split
            for record, split, value in zip(records, splits, values, strict=True)
            if value == outcome
        }
        if len(split_of) < MIN_SUBJECTS_PER_CLASS:
            count = f"{len(split_of)} subject{'s' * (len(split_of) != 1)}"
            message = f"{name} is {word} in {count}; training with validation and test needs three"
            is_absent = not split_of
            yield Finding(
                "small_class", "error" if is_absent else "warning", message, tuple(split_of), spoils=is_absent
            )
        elif any(splits) and not {"train", None} & set(split_of.values()):
            message = f"no training volume has {name} {word}"
            yield Finding("untrained_class", "error", message, (), spoils=True)


def _describe(values: NDArray[np.float64]) -> str:
    quarters = np.quantile(values, [0.25, 0.5, 0.75])
    spread = f"median {quarters[1]:.4g} (quartiles {quarters[0]:.4g} to {quarters[2]:.4g})"
    return f"{len(values)} rows, {spread}, range {values.min():.4g} to {values.max():.4g}"


def _format_targets(manifest: Manifest, record: Record) -> str:
    if manifest.target == "number":
        return f"{record.targets[0]:.12g}"
    words = {0.0: "no", 1.0: "yes"}
    pairs = zip(manifest.classes, record.targets, strict=True)
    return ", ".join(f"{name} {words.get(value, 'unknown')}" for name, value in pairs)
