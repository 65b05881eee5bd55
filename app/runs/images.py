"""`images.json`: the files and voxels that a run is trained on, compared when it is resumed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from voxlift.app.config import SettingsError
from voxlift.app.data.cohort import Cohort
from voxlift.app.files import read_json, write_json
from voxlift.app.runs.folder import RunFolder
from voxlift.data_pipelines.errors import list_some
from voxlift.data_pipelines.paths import find_real_path
from voxlift.data_pipelines.readers.identity import identify_image
from voxlift.data_pipelines.tables.leaks import refuse_leaks
from voxlift.data_pipelines.tables.manifest import Manifest, join_images

log = logging.getLogger("voxlift")


def write_images(cohort: Cohort, run: RunFolder) -> None:
    """Write for each record its files (real path, bytes, modification time) and the hash of its voxels."""
    write_json(
        run.images,
        {
            join_images(record.images): {"files": _identify(record.images), "voxels": digest}
            for record, digest in zip(cohort.records, _hash_voxels(cohort), strict=True)
        },
    )


def check_images(cohort: Cohort, run: RunFolder) -> None:
    """Warn of images that changed since a run began, and repeat the leak check where one did.

    Args:
        cohort: The records of the run, prepared from the files as they are now.
        run: The folder in which the training began.

    Raises:
        ManifestError: The same voxels are in two splits now.
        SettingsError: The file is damaged.
    """
    if not run.images.exists():
        log.info("%s began with a version that recorded no images: changed ones are not noticed.", run.path)
        return
    saved = read_json(run.images)
    cells = [join_images(record.images) for record in cohort.records]
    changed = [
        index
        for index, record in enumerate(cohort.records)
        if _saved(saved, cells[index], run).get("files") != _identify(record.images)
    ]
    if not changed:
        return
    hashes = _hash_voxels(cohort)
    others = [
        cohort.records[index].images[0]
        for index in changed
        if _saved(saved, cells[index], run).get("voxels") != hashes[index]
    ]
    _report(len(changed), others)
    if others:
        manifest = Manifest(cohort.records, cohort.classes, {}, run.splits)
        refuse_leaks(manifest, cohort.splits, hashes=hashes)


def _saved(saved: Mapping[str, Any], cell: str, run: RunFolder) -> Mapping[str, Any]:
    """Return what is known of a record; nothing of one that was not there when the run began."""
    known = saved.get(cell, {})
    if not isinstance(known, dict):
        raise SettingsError(
            f"{run.images}: expected the images that voxlift-train writes. Remove the file to resume without"
            " comparing them."
        )
    return known


def _report(changed: int, others: Sequence[Path]) -> None:
    if others:
        log.warning(
            "%d image(s) have other voxels than when this run began; it is resumed with those of now: %s",
            len(others),
            list_some(others),
        )
    else:
        log.info("%d image(s) were written again since this run began, with the same voxels.", changed)


def _identify(images: Sequence[Path]) -> list[list[Any]]:
    return [
        [str(find_real_path(Path(file))), size, time]
        for image in images
        for file, size, time in identify_image(image)
    ]


def _hash_voxels(cohort: Cohort) -> list[str]:
    pairs = zip(cohort.load_metadata(), cohort.records, strict=True)
    return [metadata.combine_hashes(record.images) for metadata, record in pairs]
