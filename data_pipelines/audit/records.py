"""What an audit says of records and classes: channels that do not fit, classes too small to split."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from voxlift.data_pipelines.audit.facts import Facts
from voxlift.data_pipelines.audit.findings import Finding
from voxlift.data_pipelines.geometry import corners_off_mm, is_same_grid
from voxlift.data_pipelines.tables.labels import is_number
from voxlift.data_pipelines.tables.manifest import Manifest

SPLIT_IN_THREE = 3  # subjects that a class needs for training, validation and test


def channel_findings(records: Sequence[Sequence[Facts]]) -> Iterator[Finding]:
    """Yield one finding for all records whose channels lie on different grids, which a training refuses.

    Args:
        records: The facts of each record's files, one per channel; those that cannot be read do not count.
    """
    readable = [[facts for facts in files if not facts.error] for files in records]
    off = [(files[0], one) for files in readable for one in files[1:] if not _share_grid(files[0], one)]
    if not off:
        return
    far = max(corners_off_mm(first.affine, one.affine, first.stored_shape) for first, one in off)
    bad = {str(first.path) for first, _ in off}
    yield Finding(
        "channels_off_grid",
        "error",
        f"the channels of {len(bad)} of {len(records)} records do not share a grid (corners up to"
        f" {far:.3g} mm apart)",
        tuple(str(one.path) for _, one in off),
        spoils=True,
    )


def _share_grid(first: Facts, one: Facts) -> bool:
    return is_same_grid(one.stored_shape, one.affine, first.stored_shape, first.affine)


def class_findings(manifest: Manifest, splits: Sequence[str | None]) -> Iterator[Finding]:
    """Yield the classes that a training could not give a subject in every split, and those that look alike.

    Args:
        manifest: The records.
        splits: One per record; None where none is assigned yet.
    """
    yield from _lookalikes(manifest.classes)
    holders = defaultdict[int, dict[str, str | None]](dict)
    for record, split in zip(manifest.records, splits, strict=True):
        holders[record.label][record.subject] = split
    if not any(splits):
        yield from _small_classes(manifest.classes, holders)
        return
    for label, name in enumerate(manifest.classes):
        if not {"train", None} & set(holders[label].values()):
            yield Finding("untrained_class", "error", f"no training volume is of class {name}", spoils=True)


def _small_classes(classes: Sequence[str], holders: Mapping[int, Collection[str]]) -> Iterator[Finding]:
    small = [label for label in range(len(classes)) if len(holders[label]) < SPLIT_IN_THREE]
    if len(small) > 1 and len(classes) > SPLIT_IN_THREE and all(map(is_number, classes)):
        said = f"the label is a number of {len(classes)} values; {len(small)} of them are too rare to split"
        yield Finding("numeric_label", "error", said, spoils=True)
        return
    for label in small:
        few, alone = tuple(holders[label]), len(holders[label]) < SPLIT_IN_THREE - 1
        subjects = f"{len(few)} subject{'s' * (len(few) != 1)}"
        said = f"class {classes[label]} has {subjects}; a training with validation and test needs three"
        yield Finding("small_class", "error" if alone else "warning", said, few, spoils=alone)


def _lookalikes(classes: Sequence[str]) -> Iterator[Finding]:
    """Yield the classes whose names differ by capitals, spaces or punctuation alone."""
    groups = defaultdict[str, list[str]](list)
    for name in classes:
        groups[re.sub(r"[\W_]+", "", name.casefold()) or name].append(name)
    for same in groups.values():
        if len(same) > 1 and not any(is_number(name) for name in same):
            listed = " and ".join(map(repr, same))
            yield Finding("similar_classes", "warning", f"the classes {listed} differ in writing alone")
