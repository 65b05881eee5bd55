"""Data parallel training over several processes: each holds all weights and computes its part of a batch.

JAX sees one batch that lies on the devices of all processes, and one step on it: loss, gradients,
clipping, dropout and the statistics of batch normalisation are those of the whole batch. Scores and the like
are computed by each process alone, with a local copy of the network that has the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import TrainSettings
from voxlift.app.config.checks import refuse_uneven_batches
from voxlift.app.data.cohort import Cohort
from voxlift.app.inference.scores import build_validation_scorer, predict_logits
from voxlift.app.runtime.setup import unchanged_randomness
from voxlift.app.training.networks import Networks
from voxlift.data_pipelines.cache.format import PreparedVolumes

if TYPE_CHECKING:
    from voxlift.app.training.networks import Networks


def set_data_parallel(settings: TrainSettings) -> None:
    """Distribute all networks built from now on over all devices of all processes.

    Raises:
        SettingsError: A batch that they cannot share evenly.
    """
    import keras

    refuse_uneven_shares(settings)
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))


def refuse_uneven_shares(settings: TrainSettings) -> None:
    """Pass when all devices of all processes get the same number of samples of a batch.

    Raises:
        SettingsError: With the nearest batch sizes.
    """
    refuse_uneven_batches(settings.trainer.batch_size, global_device_count())


def global_device_count() -> int:
    """Return the number of devices of all processes."""
    import jax

    return int(jax.device_count())


def own_share() -> tuple[int, int]:
    """Return the index of this process, and the number of processes."""
    import jax

    return int(jax.process_index()), int(jax.process_count())


@contextmanager
def single_process() -> Iterator[None]:
    """Build and compute on this process alone."""
    import keras

    before = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def build_with_local_copy(build: Callable[[], Networks]) -> Networks:
    """Build a distributed network to train, and a local one to score with.

    Both use the same random draws, which are those of single-process training.
    """
    with unchanged_randomness(), single_process():
        own = build()  # first: its layers get the names that they have without others
    return replace(build(), volume=own.volume, local=own.trained, plan=own.plan)


def copy_weights(networks: Networks) -> None:
    """Copy the weights of the trained network to the local copy, where there is one."""
    if networks.local is not None:
        networks.local.set_weights(networks.trained.get_weights())


def broadcast_values(values: Mapping[str, float]) -> dict[str, float]:
    """Return the numbers of process 0, bit for bit."""
    from jax.experimental import multihost_utils

    words = np.array(list(values.values()), np.float64).view(np.uint32)  # the engine has no float64
    with single_process():
        same = np.asarray(multihost_utils.broadcast_one_to_all(words)).astype(np.uint32)
    return dict(zip(values, same.view(np.float64).tolist(), strict=True))


def global_batches(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield the inputs of whole batches from the parts of all processes, for use outside of `fit`."""
    import jax
    import keras

    layout = keras.distribution.distribution().get_data_layout

    def gather(part: Any) -> Any:  # noqa: ANN401 - a tensor
        values = np.asarray(part)
        return jax.make_array_from_process_local_data(layout(values.shape).backend_layout, values)

    for batch in batches:
        yield (keras.tree.map_structure(gather, batch[0]),)


def build_shared_scorer(
    networks: Networks, cohort: Cohort, *, batch_size: int
) -> Callable[[], dict[str, float]]:
    """Return a function that scores the validation volumes, of which each process reads a share.

    The scores are equal bit for bit in all processes, since early stopping depends on them.
    """
    score = build_validation_scorer(networks.volume, cohort, batch_size=batch_size, predict=shared_logits)

    def together() -> dict[str, float]:
        copy_weights(networks)
        return broadcast_values(score())

    return together


def shared_logits(network: Any, volumes: PreparedVolumes, *, batch_size: int) -> NDArray[np.float32]:  # noqa: ANN401 - untyped Keras
    """Return the logits [N, K] of prepared volumes, in order; every process computes some and gets all."""
    from jax.experimental import multihost_utils

    (index, count), total = own_share(), len(volumes)
    own = volumes.take(slice(index, None, count))
    padded = np.zeros((-(-total // count), int(network.output_shape[-1])), np.float32)
    with single_process():
        if len(own):
            padded[: len(own)] = predict_logits(network, own, batch_size=batch_size)
        gathered = np.asarray(multihost_utils.process_allgather(padded))  # [count, longest share, K]
    return interleave(gathered, total)


def interleave(shares: NDArray[np.float32], total: int) -> NDArray[np.float32]:
    """Return rows [N, ...] in their order, from the shares [count, longest, ...] of the processes.

    >>> interleave(np.array([[0, 2, 4], [1, 3, 0]]), 5).tolist()
    [0, 1, 2, 3, 4]
    """
    return np.asarray(np.swapaxes(shares, 0, 1).reshape(-1, *shares.shape[2:])[:total])
