"""Numbers from a seed, and the seed of each element of a data set."""

from collections.abc import Sequence

import tensorflow as tf

Drawn = dict[str, tf.Tensor]


def unit_numbers(seed: tf.Tensor, count: int) -> list[tf.Tensor]:
    """`count` independent scalars, uniform in [0, 1), from one random operation.

    Args:
        seed: int32[2].
        count: How many.
    """
    numbers: list[tf.Tensor] = tf.unstack(tf.random.stateless_uniform([count], seed))
    return numbers


def between(number: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """A unit number carried to low..high.

    Args:
        number: In [0, 1), of any shape.
        low: What 0 becomes.
        high: What 1 would become.
    """
    return low + (high - low) * number


def within(numbers: Sequence[tf.Tensor], limits: Sequence[float]) -> tf.Tensor:
    """Unit numbers carried to -limit..limit each, stacked.

    Args:
        numbers: Scalars in [0, 1).
        limits: As many, each 0 or more.

    Returns:
        Float32 [n].
    """
    return (2.0 * tf.stack(numbers) - 1.0) * tf.constant(limits, tf.float32)


def log_between(number: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """A unit number carried to low..high so that halving and doubling are equally likely.

    Args:
        number: In [0, 1), of any shape.
        low: What 0 becomes, above 0.
        high: What 1 would become.
    """
    return low * tf.pow(high / low, number)


def whole_below(number: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
    """A unit number carried to one of 0 .. count - 1, int32.

    Args:
        number: Scalar in [0, 1).
        count: How many whole numbers there are, 1 or more.
    """
    top = tf.cast(count, tf.int32)
    # A float32 unit number times a count may round up to the count itself.
    return tf.minimum(tf.cast(number * tf.cast(count, tf.float32), tf.int32), top - 1)


def count_seeds(seed: int | Sequence[int], *, start: int = 0) -> tf.data.Dataset:
    """An endless data set of seeds int32[2]: a different one for each element, the same ones in each run.

    Zip it with the *repeated* data set, before a parallel map, so that each epoch draws afresh and the
    order of the workers cannot matter; `start` (elements already seen) goes on where an interrupted run
    stopped.

    Args:
        seed: Of the run: one number, or two.
        start: How many elements were seen already.
    """
    pair = (0, seed) if isinstance(seed, int) else tuple(seed)
    # fold_in answers in the type of its second argument
    return tf.data.Dataset.counter(start, dtype=tf.int32).map(
        lambda index: tf.random.fold_in(tf.constant(pair, tf.int32), index)
    )
