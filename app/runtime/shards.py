"""Hand a long list of files or scans to the workers of a cluster, and put the results in order."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from voxlift.app.config.schema import ClusterSettings
from voxlift.app.progress import print_line
from voxlift.app.runtime.cluster import open_client
from voxlift.app.runtime.jobs import Job, JobContext, JobEnd, run_on_workers
from voxlift.data_pipelines.parallel import AHEAD, Mapper, map_by_threads, map_in_order

if TYPE_CHECKING:
    from distributed import Client

Value = TypeVar("Value")
Item = TypeVar("Item")

MAX_SHARD = 256  # items; more would be lost with a worker
SHARDS_PER_WORKER = 4  # so that a slow worker gets fewer


def run_shards(
    client: Client,
    settings: ClusterSettings,
    items: Sequence[Item],
    call: Callable[[Sequence[Item], JobContext], Value],
    *,
    unit: str,
    multiple: int = 1,
) -> Iterator[tuple[range, JobEnd[Value]]]:
    """Run shards of a list on the workers, and yield the places of each with its end, as they end.

    The items of a shard whose workers were lost as often as allowed are tried once more, one by one: only
    what ends its worker by itself is lost.

    Args:
        client: Of the cluster.
        settings: Of the cluster.
        items: All items.
        call: Takes the items of a shard and where it runs; of a module.
        unit: What the items are, in lines such as `Shard 3/10: 64 scans in 12.3 s (worker 1 on host)`.
        multiple: Shards but the last have a multiple of so many items.

    Raises:
        SettingsError: The workers cannot be used.
        KeyboardInterrupt: The user interrupted the command.
    """
    shards = split_shards(len(items), settings, multiple=multiple)
    lost: list[int] = []
    named = {f"Shard {number}/{len(shards)}": places for number, places in enumerate(shards, start=1)}
    for places, end in _run_places(client, settings, items, call, named=named, unit=unit):
        if end.problem and len(places) > 1:
            lost.extend(places)
        else:
            yield places, end
    if lost:
        print_line(f"{len(lost)} {unit} of lost shards are tried once more, one by one")
        alone = {f"Alone {number}/{len(lost)}": range(k, k + 1) for number, k in enumerate(lost, start=1)}
        yield from _run_places(client, settings, items, call, named=alone, unit=unit)


def _run_places(
    client: Client,
    settings: ClusterSettings,
    items: Sequence[Item],
    call: Callable[[Sequence[Item], JobContext], Value],
    *,
    named: Mapping[str, range],
    unit: str,
) -> Iterator[tuple[range, JobEnd[Value]]]:
    jobs = [
        Job(name, partial(_run_shard, call, [items[k] for k in places], f"{name}: {len(places)} {unit}"))
        for name, places in named.items()
    ]
    places = list(named.values())
    for index, end in run_on_workers(client, settings, jobs):
        yield places[index], end


def _run_shard(
    call: Callable[[Sequence[Item], JobContext], Value],
    items: Sequence[Item],
    label: str,
    context: JobContext,
) -> Value:
    began = time.monotonic()
    value = call(items, context)
    context.report(f"{label} in {time.monotonic() - began:.1f} s")
    return value


def split_shards(count: int, settings: ClusterSettings, *, multiple: int = 1) -> list[range]:
    """Return the places of each shard of a list.

    Args:
        count: Items of the list.
        settings: `shard_size`, or the number of workers that share the list.
        multiple: Shards but the last have a multiple of so many items.
    """
    size = settings.shard_size or min(MAX_SHARD, math.ceil(count / (SHARDS_PER_WORKER * settings.workers)))
    size = math.ceil(max(1, size) / multiple) * multiple
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


@contextmanager
def open_mapper(settings: ClusterSettings, *, unit: str, workers: int = 0) -> Iterator[Mapper]:
    """Yield a mapper on the cluster, which is started with the first items, or by threads without one.

    Args:
        settings: Of the cluster.
        unit: See `run_shards`.
        workers: Threads without a cluster; 0 is one per CPU.
    """
    if settings.name == "none":
        yield map_by_threads(workers)
        return
    with ExitStack() as stack:
        clients: list[Client] = []

        def mapper(
            function: Callable[[Item], Value], items: Sequence[Item], *, lost: Callable[[Item, str], Value]
        ) -> Iterator[Value]:
            if items and not clients:
                shards = len(split_shards(len(items), settings))
                clients.append(stack.enter_context(open_client(settings, jobs=shards)))
            return _map_on_workers(clients, settings, function, items, lost=lost, unit=unit)

        yield mapper


def _map_on_workers(
    clients: Sequence[Client],
    settings: ClusterSettings,
    function: Callable[[Item], Value],
    items: Sequence[Item],
    *,
    lost: Callable[[Item, str], Value],
    unit: str,
) -> Iterator[Value]:
    """Yield the results in order; those of shards that end early wait."""
    waiting: dict[int, list[Value]] = {}
    place = 0
    for client in clients[:1]:  # none without items
        for places, end in run_shards(client, settings, items, partial(_map_shard, function), unit=unit):
            values = end.value or [lost(items[k], end.problem) for k in places]
            waiting.update({k: [value] for k, value in zip(places, values, strict=True)})
            while place in waiting:
                yield from waiting.pop(place)
                place += 1


def _map_shard(function: Callable[[Item], Value], items: Sequence[Item], context: JobContext) -> list[Value]:
    return list(map_in_order(function, items, workers=context.threads, ahead=AHEAD))
