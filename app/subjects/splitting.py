"""Who trains, validates and tests: splits by subject, told to the user, and leaks between them refused."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from voxlift.app.progress import console, counted_bar
from voxlift.app.settings import SplitSettings, TrainSettings
from voxlift.data_pipelines.audit.facts import read_facts
from voxlift.data_pipelines.leaks import hash_records, refuse_leaks
from voxlift.data_pipelines.manifest import Manifest
from voxlift.data_pipelines.splits import SplitCount, assign_splits, select_records, split_table

log = logging.getLogger("voxlift")


def set_outer_fold_aside(manifest: Manifest, settings: TrainSettings) -> Manifest:
    """The records outside the outer fold's test part, by which nested cross-validation is composed.

    The outer test part is that of `splits.folds=splits.outer_folds` with the same seed: so a choice made on
    inner folds is tested by a plain cross-validation on subjects that no inner training ever saw.
    """
    choice = settings.splits
    if not choice.outer_folds:
        return manifest
    outer = assign_splits(
        manifest, val=0.0, test=0.0, seed=settings.seed, folds=choice.outer_folds, fold=choice.outer_fold
    )
    kept = select_records(manifest, outer)
    log.info(
        "Outer fold %d of %d: its %d volumes are set aside",
        choice.outer_fold,
        choice.outer_folds,
        len(manifest.records) - len(kept.records),
    )
    return kept


def split_subjects(manifest: Manifest, settings: TrainSettings) -> tuple[str, ...]:
    """One split name per record, by subject and stratified; the table's own column wins."""
    choice = settings.splits
    return assign_splits(
        manifest, val=choice.val, test=choice.test, seed=settings.seed, folds=choice.folds, fold=choice.fold
    )


def refuse_shared_voxels(manifest: Manifest, splits: Sequence[str], *, settings: TrainSettings) -> None:
    """Pass when no subject and no voxels are in two splits; hashes are kept in the cache's folder.

    Raises:
        ManifestError: with the pairs of files.
    """
    time_axis, prefer = settings.data.time_axis, settings.preprocess.prefer
    with counted_bar("Comparing voxels") as count:
        hashes = hash_records(
            manifest.records,
            hash_file=partial(_hash_picture, time_axis=time_axis, prefer=prefer),
            # Both settings change what is read from the same file.
            cache=Path(settings.cache.folder) / f"hashes-{time_axis}-{prefer}.json",
            workers=settings.cache.workers or os.cpu_count() or 1,
            progress=count,
        )
    refuse_leaks(manifest, splits, hashes=hashes)


def say_splits(manifest: Manifest, splits: Sequence[str], *, choice: SplitSettings) -> None:
    """Print how many subjects of each class train, validate and test; and volumes where they are more.

    Args:
        manifest: Whose records they are.
        splits: One for each record.
        choice: Whether this is a fold of several, which the title then names.
    """
    fold = f", splits.fold={choice.fold} of 0 to {choice.folds - 1}" if choice.folds else ""
    from rich.table import Table

    counts = split_table(manifest, splits)
    table = Table("class", title=f"Splits, by subject{fold}")
    for split in dict.fromkeys(count.split for count in counts):
        table.add_column(split, justify="right")
    for name in manifest.classes:
        table.add_row(name, *[_spoken_count(count) for count in counts if count.class_name == name])
    console.print(table)


def _spoken_count(count: SplitCount) -> str:
    more = f" ({count.volumes} volumes)" if count.volumes != count.subjects else ""
    return f"{count.subjects}{more}"


def _hash_picture(path: Path, *, time_axis: str, prefer: str) -> str | None:
    """The hash of a file's voxels; None where it cannot be read, which preparing it will report."""
    facts = read_facts(path, time_axis=time_axis, prefer=prefer)
    if facts.error:
        return None
    # Two blank images are alike without being copies of one.
    return f"blank {path}" if facts.minimum == facts.maximum else facts.voxel_hash
