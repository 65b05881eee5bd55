"""Networks spread over several processes: each holds all weights, and computes on its part of every batch.

The engine sees one batch that lies on the devices of all processes, and one step on it: loss, gradients,
clipping, dropout and the statistics of batch normalisation are those of the whole batch. Scores and the like
are computed by each process alone, with a local copy of the network that has the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from voxlift.app.config import TrainSettings
from voxlift.app.runtime.setup import unchanged_randomness
from voxlift.app.training.strategy.batches import refuse_uneven_batches
from voxlift.app.training.strategy.hosts.rendezvous import barrier

if TYPE_CHECKING:
    from voxlift.app.training.networks import Networks


def set_data_parallel(settings: TrainSettings) -> None:
    """From here on, what is trained is spread over all devices of all processes.

    Raises:
        SettingsError: a batch that they cannot share evenly.
    """
    import keras

    connect_devices()
    refuse_uneven_batches(settings.trainer.batch_size, global_device_count())
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))


def connect_devices() -> None:
    """Let the devices of all processes find one another while all are here: they look for half a minute."""
    from jax.experimental import multihost_utils

    barrier("before the devices")
    multihost_utils.sync_global_devices("voxlift")


def global_device_count() -> int:
    """How many devices all processes have together."""
    import jax

    return int(jax.device_count())


@contextmanager
def single_process() -> Iterator[None]:
    """What is built and computed inside belongs to this process, as if there were no others."""
    import keras

    before = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def build_with_local_copy(build: Callable[[], Networks]) -> Networks:
    """Networks whose trained one is spread, and whose scoring one is this process's own.

    Both are built from the same draws, which are those of a process without others.
    """
    with unchanged_randomness(), single_process():
        own = build()  # first: its layers get the names that they have without others
    return replace(build(), volume=own.volume, local=own.trained)


def copy_weights(networks: Networks) -> None:
    """Give the local copy what the trained network holds now; nothing to do where they are one."""
    if networks.local is not None:
        networks.local.set_weights(networks.trained.get_weights())


def broadcast_values(values: Mapping[str, float]) -> dict[str, float]:
    """The numbers that process 0 has, to the last bit."""
    from jax.experimental import multihost_utils

    words = np.array(list(values.values()), np.float64).view(np.uint32)  # the engine has no float64
    with single_process():
        same = np.asarray(multihost_utils.broadcast_one_to_all(words)).astype(np.uint32)
    return dict(zip(values, same.view(np.float64).tolist(), strict=True))


def global_batches(batches: Iterable[Any]) -> Iterator[Any]:
    """The voxels of whole batches [B, ...], of which each process has a part, for steps outside of `fit`."""
    import jax
    import keras

    layout = keras.distribution.distribution().get_data_layout
    for batch in batches:
        part = np.asarray(batch[0])
        yield (jax.make_array_from_process_local_data(layout(part.shape).backend_layout, part),)
