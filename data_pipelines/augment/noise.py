"""White Gaussian noise."""

import tensorflow as tf

from voxlift.data_pipelines.augment.draws import Drawn, between, unit_numbers
from voxlift.data_pipelines.augment.grid import Grid
from voxlift.data_pipelines.augment.levels import mean_and_deviation
from voxlift.data_pipelines.augment.settings import Augment


def is_on(settings: Augment) -> bool:
    """True when the family can act."""
    return settings.noise_prob > 0


def draw(settings: Augment, grid: Grid, seed: tf.Tensor) -> Drawn:  # noqa: ARG001 - every family draws alike
    """`noise_sd`, in standard deviations of the channel (0: nothing happens); `noise_seed` of the field."""
    seeds = tf.random.split(seed, 2)
    gate, number = unit_numbers(seeds[0], 2)
    sd = tf.where(gate < settings.noise_prob, between(number, *settings.noise_sd), 0.0)
    return {"noise_sd": sd, "noise_seed": seeds[1]}


def apply(voxels: tf.Tensor, drawn: Drawn, settings: Augment) -> tf.Tensor:  # noqa: ARG001
    """Voxels [D, H, W, C] plus noise."""

    def add() -> tf.Tensor:
        _, deviation = mean_and_deviation(voxels)
        return voxels + tf.random.stateless_normal(voxels.shape, drawn["noise_seed"]) * (
            drawn["noise_sd"] * deviation
        )

    return tf.cond(drawn["noise_sd"] > 0.0, add, lambda: voxels)
