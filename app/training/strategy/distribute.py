"""What `strategy` names: devices are prepared, networks distributed over them, batches shared.

With `strategy=mirrored` each device of this host holds the whole network and computes its part of every
batch. Gradients are summed over the devices before they are clipped or checked for overflow: Keras would clip
those of each device, which is another step. A step matches one device up to rounding, with two exceptions:
batch normalisation takes its statistics from each part (the moving ones are averaged), and dropout draws for
each part. The `synchronized` statistics of Keras fail with TensorFlow 2.21 on two logical CPUs: their sums
are mixed up.

With `strategy=hosts` each process holds all weights and computes its part of a batch. JAX sees one batch that
lies on the devices of all processes, and one step on it: loss, gradients, clipping, dropout and the
statistics of batch normalisation are those of the whole batch. Scores and the like are computed by each
process alone, with a local copy of the network that has the same weights. How the processes connect is in
`hosts`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import SettingsError, TrainSettings
from voxlift.app.config.checks import refuse_uneven_batches
from voxlift.app.data.cohort import Cohort
from voxlift.app.inference.scores import build_validation_scorer, predict_logits
from voxlift.app.runtime.devices import backend_name
from voxlift.app.runtime.setup import unchanged_randomness
from voxlift.app.training.networks import Networks
from voxlift.app.training.strategy.hosts import barrier, is_follower
from voxlift.data_pipelines.cache.format import PreparedVolumes

if TYPE_CHECKING:
    from voxlift.app.training.networks import Networks


log = logging.getLogger("voxlift")

STATISTICS = ("moving_mean", "moving_variance")


def prepare_devices(settings: TrainSettings) -> None:
    """Set up the devices and check that they share the batch evenly; before any device is used.

    Raises:
        SettingsError: Too few devices, or a batch that they cannot share evenly.
    """
    if settings.strategy == "hosts":
        set_data_parallel(settings)
    elif settings.strategy == "mirrored":
        _prepare_mirrored(settings)


def device_count(settings: TrainSettings) -> int:
    """Return how many devices share each batch."""
    if settings.strategy == "hosts":
        return global_device_count()
    return len(_devices(settings.devices.logical_cpus)) if settings.strategy == "mirrored" else 1


def batch_shard(settings: TrainSettings) -> tuple[int, int]:
    """Return which part of each batch this process reads: its index, and the number of parts."""
    return own_share() if settings.strategy == "hosts" else (0, 1)


def build_distributed(settings: TrainSettings, build: Callable[[], Networks]) -> Networks:
    """Build networks, the trained one of which lies on all devices that the settings name.

    The one that scores stays on one device: the last batch of a data set may be smaller than their number.
    """
    if settings.strategy == "hosts":
        return build_with_local_copy(build)
    return _build_mirrored(settings, build) if settings.strategy == "mirrored" else build()


@contextmanager
def on_one_process(settings: TrainSettings, *, name: str, is_last: bool) -> Iterator[bool]:
    """Yield whether this process does work that one process is enough for.

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
        _disconnect()  # the others may end while this process still works
    if is_writer:
        with single_process():
            yield True
    else:
        yield False
    if not is_last:
        barrier(name)


def _disconnect() -> None:
    """Disconnect from the other hosts, as all of them do; what follows is computed by this process alone."""
    import jax

    jax.distributed.shutdown()


def _prepare_mirrored(settings: TrainSettings) -> None:
    """Set up mirrored devices and check that they share the batch evenly; before any device is used.

    Raises:
        SettingsError: Too few devices, or a batch that they cannot share evenly.
    """
    if backend_name() != "tensorflow":
        raise SettingsError(
            f"strategy=mirrored: expected the TensorFlow backend; received KERAS_BACKEND={backend_name()}. "
            "Use strategy=single, or unset KERAS_BACKEND."
        )
    if settings.devices.logical_cpus:
        _split_cpu(settings.devices.logical_cpus)
    count = len(_devices(settings.devices.logical_cpus))
    if count < 2:
        raise SettingsError(
            f"strategy=mirrored: expected at least two GPUs on this host, found {count}. "
            "Use strategy=single, or try it without GPUs with devices.logical_cpus=2."
        )
    refuse_uneven_batches(settings.trainer.batch_size, count)
    kind = "CPU, split" if settings.devices.logical_cpus else "GPUs of this host"
    log.info(
        "Mirrored on %d devices (%s): %d of every %d samples each",
        count,
        kind,
        settings.trainer.batch_size // count,
        settings.trainer.batch_size,
    )


def _build_mirrored(settings: TrainSettings, build: Callable[[], Networks]) -> Networks:
    """Build networks, the trained one of which is mirrored on all devices of this host.

    The one that scores stays on one device: the last batch of a data set may be smaller than their number.
    """
    import keras

    with _strategy(settings.devices.logical_cpus).scope():
        networks = build()
    _average_statistics(networks.trained)
    inputs, (outputs,) = networks.volume.inputs, networks.volume.outputs
    scored = keras.Model(inputs[0] if len(inputs) == 1 else inputs, outputs, name=networks.volume.name)
    return replace(networks, volume=scored)


def sum_before_clipping(network: Any) -> None:  # noqa: ANN401 - untyped Keras
    """Give the optimiser of a compiled network gradients that are summed over all its devices."""
    import tensorflow as tf

    optimizer = network.optimizer
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # behind the scaling of the loss
    apply = optimizer.apply

    def apply_summed(grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> Any:  # noqa: ANN401 - as above
        context = tf.distribute.get_replica_context()
        summed = context.all_reduce(tf.distribute.ReduceOp.SUM, list(grads))
        return apply(summed, trainable_variables)

    optimizer.apply = apply_summed
    inner._all_reduce_sum_gradients = list  # noqa: SLF001 - Keras's own sum, behind its clipping, is taken


def is_mirrored(network: Any) -> bool:  # noqa: ANN401 - untyped Keras
    """Return whether a network was built to be distributed over several devices."""
    strategy = getattr(network, "distribute_strategy", None)  # with TensorFlow alone
    return strategy is not None and strategy.num_replicas_in_sync > 1


def scope_of(network: Any) -> AbstractContextManager[Any]:  # noqa: ANN401 - untyped Keras
    """Return the scope for making a network's optimiser, whose variables then lie beside the weights."""
    if not is_mirrored(network):
        return nullcontext()
    scope: AbstractContextManager[Any] = network.distribute_strategy.scope()
    return scope


def _average_statistics(network: Any) -> None:  # noqa: ANN401 - untyped Keras
    """Let moving statistics be the mean over the devices; Keras would save those of the first."""
    import tensorflow as tf

    for layer in network._flatten_layers():  # noqa: SLF001 - Keras has no public walk into nested networks
        for name in STATISTICS:
            if hasattr(layer, name):
                getattr(layer, name).value._aggregation = tf.VariableAggregation.MEAN  # noqa: SLF001 - no setter


@functools.cache
def _strategy(logical_cpus: int) -> Any:  # noqa: ANN401 - TensorFlow's types are not known here
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(_devices(logical_cpus))


def _devices(logical_cpus: int) -> list[str]:
    import tensorflow as tf

    kind = "CPU" if logical_cpus else "GPU"
    return [str(device.name) for device in tf.config.list_logical_devices(kind)]


def _split_cpu(count: int) -> None:
    """Let TensorFlow see the CPU as several devices.

    Raises:
        SettingsError: It has been used as one already, in this process.
    """
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    if len(tf.config.get_logical_device_configuration(cpu) or ()) == count:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:
        raise SettingsError(f"devices.logical_cpus={count}: the CPU is in use already; {error}") from error


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

    words = np.array(list(values.values()), np.float64).view(np.uint32)  # JAX has no float64 by default
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
