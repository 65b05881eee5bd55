"""What `strategy` asks for, whichever it is: devices made ready, networks spread, batches shared."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from voxlift.app.config import TrainSettings
from voxlift.app.training.strategy import mirrored
from voxlift.app.training.strategy.hosts.data_parallel import (
    alone,
    build_with_twin,
    global_device_count,
    spread_over_hosts,
)
from voxlift.app.training.strategy.hosts.rendezvous import is_follower, leave, meet, own_index, process_count

if TYPE_CHECKING:
    from voxlift.app.training.networks import Networks


def prepare_devices(settings: TrainSettings) -> None:
    """Set up what `strategy` names and check that the batch can be shared out; before any device is used.

    Raises:
        SettingsError: too few devices, or a batch that they cannot share evenly.
    """
    if settings.strategy == "hosts":
        spread_over_hosts(settings)
    else:
        mirrored.prepare_devices(settings)


def device_count(settings: TrainSettings) -> int:
    """How many devices share each batch."""
    if settings.strategy == "hosts":
        return global_device_count()
    return mirrored.device_count(settings)


def batch_part(settings: TrainSettings) -> tuple[int, int]:
    """Which part of each batch this process reads: its index, and how many there are."""
    return (own_index(), process_count()) if settings.strategy == "hosts" else (0, 1)


def build_spread(settings: TrainSettings, build: Callable[[], Networks]) -> Networks:
    """Networks whose trained one is spread over the devices that the settings name.

    The one that scores stays on one device: the last batch of a data set may be smaller than their number.
    """
    if settings.strategy == "hosts":
        return build_with_twin(build)
    return mirrored.build_spread(settings, build)


def do_once(act: Callable[[], None], settings: TrainSettings, *, name: str, is_last: bool) -> None:
    """Do what one process is enough for, without the others.

    Args:
        act: the work of host 0; the only process's where there is one.
        settings: the run's.
        name: of the work, each with its own.
        is_last: whether the others have nothing to do afterwards; else they wait until it is done.
    """
    if settings.strategy != "hosts":
        act()
        return
    follows = is_follower(settings)
    if is_last:
        leave()  # so that nobody is missed while one goes on
    if not follows:
        with alone():
            act()
    if not is_last:
        meet(name)
