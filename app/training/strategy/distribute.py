"""What `strategy` names: devices are prepared, networks distributed, batches shared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from voxlift.app.config import TrainSettings
from voxlift.app.training.strategy import mirrored
from voxlift.app.training.strategy.hosts.data_parallel import (
    build_with_local_copy,
    global_device_count,
    set_data_parallel,
    single_process,
)
from voxlift.app.training.strategy.hosts.rendezvous import (
    barrier,
    disconnect,
    is_follower,
    own_index,
    process_count,
)

if TYPE_CHECKING:
    from voxlift.app.training.networks import Networks


def prepare_devices(settings: TrainSettings) -> None:
    """Set up the devices and check that they share the batch evenly; before any device is used.

    Raises:
        SettingsError: Too few devices, or a batch that they cannot share evenly.
    """
    if settings.strategy == "hosts":
        set_data_parallel(settings)
    else:
        mirrored.prepare_devices(settings)


def device_count(settings: TrainSettings) -> int:
    """Return how many devices share each batch."""
    if settings.strategy == "hosts":
        return global_device_count()
    return mirrored.device_count(settings)


def batch_shard(settings: TrainSettings) -> tuple[int, int]:
    """Return which part of each batch this process reads: its index, and the number of parts."""
    return (own_index(), process_count()) if settings.strategy == "hosts" else (0, 1)


def build_distributed(settings: TrainSettings, build: Callable[[], Networks]) -> Networks:
    """Build networks, the trained one of which lies on all devices that the settings name.

    The one that scores stays on one device: the last batch of a data set may be smaller than their number.
    """
    if settings.strategy == "hosts":
        return build_with_local_copy(build)
    return mirrored.build_mirrored(settings, build)


@contextmanager
def on_one_process(settings: TrainSettings, *, name: str, is_last: bool) -> Iterator[bool]:
    """Tell inside whether this process does work that one process is enough for.

    Args:
        settings: Of the run.
        name: Of the work, each with its own.
        is_last: Whether the other processes have nothing to do afterwards; otherwise they wait for the end.
    """
    if settings.strategy != "hosts":
        yield True
        return
    is_writer = not is_follower(settings)
    if is_last:
        disconnect()  # the others may end while this process still works
    if is_writer:
        with single_process():
            yield True
    else:
        yield False
    if not is_last:
        barrier(name)
