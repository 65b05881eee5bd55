"""`voxlift-predict embed=true`: the features of a network for new scans, as a file for `data.embeddings`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from voxlift.app.config import PredictSettings, SettingsError
from voxlift.app.files import write_json
from voxlift.app.inference.ensemble import load_networks, open_ensemble
from voxlift.app.inference.predictor import scan_key
from voxlift.app.inference.scans import find_input_scans, prepare_scan, take_batches
from voxlift.app.progress import print_line, progress_bar
from voxlift.app.runs.folder import volume_shape
from voxlift.app.runtime.exit_status import DONE, USER_ERROR
from voxlift.app.runtime.failures import build_scoring_hint, translate_failures
from voxlift.app.runtime.logs import logging_to_file
from voxlift.data_pipelines.parallel import map_in_order
from voxlift.data_pipelines.tables.embeddings import write_embeddings


def run_embedding(settings: PredictSettings) -> int:
    """Write the features [F] of every scan that can be used, and name the others.

    Returns:
        The exit status: 0, or 2 where no scan could be used.

    Raises:
        SettingsError, ManifestError: The run or the input cannot be used at all; nothing is written.
    """
    run = str(settings.run[0] if isinstance(settings.run, list) else settings.run)
    with logging_to_file():
        ensemble = open_ensemble([run])
        (member,) = ensemble.members
        if not member.settings.model.has_network:
            name = member.settings.model.name
            raise SettingsError(
                f"embed=true: expected the run of a network; {run} is one of model={name}, without features."
            )
        scans = find_input_scans(str(settings.input), ensemble, settings)
        (network,) = load_networks(ensemble)
        from voxlift.models.features import build_feature_extractor

        try:
            extractor = build_feature_extractor(network)
        except ValueError as error:
            raise SettingsError(f"embed=true: {error}") from error
        batch_size = settings.batch_size or member.settings.trainer.batch_size
        prepare = partial(prepare_scan, settings=ensemble.preprocess, shape=volume_shape(network))
        usable, vectors, reasons = [], [], []
        with (
            translate_failures(build_scoring_hint(batch_size)),
            progress_bar("Embedding", len(scans)) as advance,
        ):
            prepared = map_in_order(prepare, scans, workers=settings.workers, ahead=2 * batch_size)
            for batch in take_batches(prepared, batch_size):
                voxels = [scan.voxels for scan in batch if scan.voxels is not None]
                vectors += list(extractor.predict_on_batch(np.stack(voxels))) if voxels else []
                usable += [scan_key(scan.scan) for scan in batch if scan.voxels is not None]
                reasons += [scan.reason for scan in batch if scan.voxels is None]
                for _ in batch:
                    advance()
    for reason in reasons:
        print_line(f"Left out: {reason}")
    output = Path(settings.output).expanduser()
    if vectors:
        subjects, images = zip(*usable, strict=True)
        write_embeddings(output, subjects=subjects, images=images, vectors=np.array(vectors))
        write_json(output.with_suffix(".json"), _describe(settings, run, len(vectors), reasons))
    print_line(f"{len(vectors)} of {len(scans)} scans have a vector; {len(reasons)} could not be used.")
    print_line(f"Results in {settings.output}" if vectors else "Nothing is written.")
    return DONE if vectors else USER_ERROR


def _describe(settings: PredictSettings, run: str, count: int, reasons: list[str]) -> dict[str, object]:
    """Return the JSON file beside the vectors: how they were made."""
    return {
        "runs": [str(Path(run).expanduser().absolute())],
        "input": str(Path(str(settings.input)).expanduser().absolute()),
        "vectors": count,
        "left_out": reasons,
    }
