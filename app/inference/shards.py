"""Score scans in this process, or in shards on the workers of a cluster, which load the networks once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

from voxlift.app.config import PredictSettings
from voxlift.app.inference.ensemble import open_ensemble
from voxlift.app.inference.predictor import Notice, NumberedScan, Predictor, Row, build_predictor
from voxlift.app.runtime.cluster import open_client
from voxlift.app.runtime.failures import build_scoring_hint, translate_failures
from voxlift.app.runtime.jobs import JobContext
from voxlift.app.runtime.setup import import_user_modules
from voxlift.app.runtime.shards import run_shards, split_shards

ShardRows = tuple[list[Row], list[Notice]]


def score_scans(
    scans: Sequence[NumberedScan], predictor: Predictor, settings: PredictSettings
) -> Iterator[list[Row]]:
    """Yield rows of scans, batch by batch in order; on a cluster shard by shard, as they end.

    Shards hold whole batches, so that each scan is scored in the same batch as without a cluster.
    """
    if settings.cluster.name == "none" or not scans:
        yield from predictor.predict(scans)
        return
    size = predictor.batch_size
    call = partial(_score_shard, settings=settings, seen=predictor.seen)
    shards = len(split_shards(len(scans), settings.cluster, multiple=size))
    with open_client(settings.cluster, jobs=shards) as client:
        for places, end in run_shards(client, settings.cluster, scans, call, unit="scans", multiple=size):
            if end.value is None:
                yield [predictor.describe_lost(scans[k][1], end.problem) for k in places]
                continue
            rows, notices = end.value
            for notice in notices:
                predictor.notice(*notice)
            yield rows


def _score_shard(
    scans: Sequence[NumberedScan], context: JobContext, *, settings: PredictSettings, seen: frozenset[str]
) -> ShardRows:
    """Score a shard on a worker.

    Raises:
        UserError: Memory or the disk does not suffice.
    """
    os.environ.update(context.environment)  # before TensorFlow is imported for the worker's first shard
    workers = settings.workers or context.threads
    predictor = replace(_load(_Key(repr(settings), settings)), seen=seen, workers=workers, notices=[])
    with translate_failures(build_scoring_hint(predictor.batch_size)):
        rows = [row for batch in predictor.predict(scans) for row in batch]
    return rows, predictor.notices or []


@dataclass(frozen=True)
class _Key:
    """Settings of a prediction, equal where they load the same networks."""

    identity: str
    settings: PredictSettings = field(compare=False)


@lru_cache(maxsize=1)
def _load(key: _Key) -> Predictor:
    settings = key.settings
    import_user_modules(settings.custom)
    runs = settings.run if isinstance(settings.run, list) else [settings.run]
    return build_predictor(settings, open_ensemble([str(run) for run in runs]))
