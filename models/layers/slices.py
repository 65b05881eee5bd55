"""The layers of the slice model: split volumes into slices, and aggregate the scores of slices."""

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from voxlift.models.backend import Tensor
from voxlift.models.layers.convolution import Setting

AXES = {"depth": 1, "height": 2, "width": 3}
AGGREGATES = ("mean", "max", "topk", "attention")
EXCLUDED = -1e9  # log-probability of an excluded slice: finite, so that gradients stay finite


@dataclass(frozen=True)
class SliceShape:
    """The slices of a volume along one axis.

    Attributes:
        axis: `depth`, `height` or `width`.
        first: Index of the first slice.
        count: Number of slices.
        shape: Height, width and channels of a slice.
    """

    axis: str
    first: int
    count: int
    shape: tuple[int, int, int]


def select_slices(
    input_shape: tuple[int, int, int, int],
    *,
    axis: str = "depth",
    slices: str = "all",
    slab: int = 1,
) -> tuple[SliceShape, ...]:
    """Return which slices of a volume a slice model scores, one entry per axis.

    Args:
        input_shape: Depth, height, width, channels.
        axis: `depth`, `height`, `width`, or `all` three.
        slices: `central` selects the middle half (rounded up); `all` and `foreground` every slice.
        slab: Neighbouring slices per sample, an odd number; they become channels.

    Raises:
        ValueError: A value is none of these.

    >>> select_slices((8, 32, 24, 1), slices="central", slab=3)
    (SliceShape(axis='depth', first=2, count=4, shape=(32, 24, 3)),)
    """
    if axis not in {*AXES, "all"}:
        raise ValueError(f"Expected axis depth, height, width or all, received {axis!r}.")
    if slices not in {"all", "central", "foreground"}:
        raise ValueError(f"Expected slices all, central or foreground, received {slices!r}.")
    if slab < 1 or slab % 2 == 0:
        raise ValueError(f"Expected an odd number of slices per slab, received {slab}. Use 1, 3, 5 ...")
    if len(input_shape) != 4:
        raise ValueError(f"Expected depth, height, width and channels, received {input_shape}.")
    *sizes, channels = input_shape
    shapes = []
    for name in AXES if axis == "all" else (axis,):
        index = AXES[name] - 1
        total = sizes[index]
        count = (total + 1) // 2 if slices == "central" else total
        height, width = sizes[:index] + sizes[index + 1 :]
        shapes.append(SliceShape(name, (total - count) // 2, count, (height, width, channels * slab)))
    return tuple(shapes)


@keras.saving.register_keras_serializable(package="voxlift")
class FoldSlices(keras.layers.Layer):
    """The slices of volumes as a batch: [B, D, H, W, C] -> [B * count, height, width, slab * C].

    Sample b * count + n is slice `first` + n of volume b. The channels of a slab are its slices in order,
    each with its C channels; beyond the first and the last slice of the volume the edge slice is repeated.

    Args:
        axis: `depth`, `height` or `width`.
        first: Index of the first slice.
        count: Number of slices.
        slab: Neighbouring slices per sample, odd.
        kwargs: Arguments of every Keras layer.
    """

    def __init__(self, axis: str, *, first: int, count: int, slab: int = 1, **kwargs: Setting) -> None:
        super().__init__(**kwargs)
        self.axis, self.first, self.count, self.slab = axis, first, count, slab

    def call(self, inputs: Tensor) -> Tensor:
        """Return the slices [B * count, height, width, slab * C] of volumes [B, D, H, W, C]."""
        volumes = ops.moveaxis(inputs, AXES[self.axis], 1)  # [B, N, h, w, C]
        last, radius = volumes.shape[1] - 1, self.slab // 2
        neighbours = []
        for offset in range(-radius, radius + 1):
            indices = [min(max(self.first + n + offset, 0), last) for n in range(self.count)]
            is_identity = offset == 0 and self.count > last
            neighbours.append(volumes if is_identity else ops.take(volumes, indices, axis=1))
        slabs = neighbours[0] if self.slab == 1 else ops.concatenate(neighbours, axis=-1)
        return ops.reshape(slabs, (-1, *slabs.shape[2:]))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return [batch, height, width, channels] of the slices."""
        sizes = [size for index, size in enumerate(input_shape[1:4], 1) if index != AXES[self.axis]]
        batch = None if input_shape[0] is None else input_shape[0] * self.count
        return (batch, *sizes, (input_shape[4] or 0) * self.slab)

    def get_config(self) -> dict[str, Any]:
        """Return the settings."""
        settings = {"axis": self.axis, "first": self.first, "count": self.count, "slab": self.slab}
        return {**super().get_config(), **settings}


@keras.saving.register_keras_serializable(package="voxlift")
class UnfoldSlices(keras.layers.Layer):
    """The inverse of `FoldSlices` for values per slice: [B * count, K] -> [B, count, K].

    Args:
        count: Number of slices per volume.
        kwargs: Arguments of every Keras layer.
    """

    def __init__(self, count: int, **kwargs: Setting) -> None:
        super().__init__(**kwargs)
        self.count = count

    def call(self, inputs: Tensor) -> Tensor:
        """Return values [B, count, K] of values [B * count, K]."""
        return ops.reshape(inputs, (-1, self.count, inputs.shape[-1]))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return [B, count, K]."""
        batch = None if input_shape[0] is None else input_shape[0] // self.count
        return (batch, self.count, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Return the settings."""
        return {**super().get_config(), "count": self.count}


@keras.saving.register_keras_serializable(package="voxlift")
class ForegroundSlices(keras.layers.Layer):
    """A mask of the slices that show foreground: [B, D, H, W, C] -> 1.0 or 0.0 [B, count] along one axis.

    A voxel is bright if it is above its volume's mean; a slice is foreground if its share of bright voxels is
    at least half of the whole volume's share. So at least one slice is foreground, at any scale of intensity.

    Args:
        axis: `depth`, `height` or `width`.
        kwargs: Arguments of every Keras layer.
    """

    def __init__(self, axis: str, **kwargs: Setting) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, inputs: Tensor) -> Tensor:
        """Return 1.0 for foreground slices and 0.0 for others, float32 [B, count]."""
        bright = ops.cast(inputs > ops.mean(inputs, axis=(1, 2, 3, 4), keepdims=True), "float32")
        others = tuple(axis for axis in (1, 2, 3, 4) if axis != AXES[self.axis])
        share = ops.mean(bright, axis=others)  # [B, count]
        return ops.cast(share >= 0.5 * ops.mean(share, axis=1, keepdims=True), "float32")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return [B, count]."""
        return (input_shape[0], input_shape[AXES[self.axis]])

    def get_config(self) -> dict[str, Any]:
        """Return the settings."""
        return {**super().get_config(), "axis": self.axis}


@keras.saving.register_keras_serializable(package="voxlift")
class AggregateSlices(keras.layers.Layer):
    """Outputs of volumes [B, K] from outputs of slices [B, N, K].

    With `activation=softmax` logits of classes become log-probabilities:

    - `mean`: the mean of the slices' probabilities;
    - `max`: each class's largest probability over the slices, scaled to sum to one;
    - `topk`: the mean of each class's `top` largest probabilities, scaled to sum to one;
    - `attention`: a mean of the probabilities with learned weights, from features of the slices [B, N, F].

    With `sigmoid` logits of findings become logits, of the same means of the probability of each finding,
    or its maximum. With `linear` numbers become their mean, maximum, mean of the `top` largest, or weighted
    mean.

    All is computed in float32, and probabilities in logarithms, so that none underflows.

    Args:
        how: One of these.
        top: Number of slices that `topk` averages.
        units: Hidden units of the attention.
        activation: `softmax`, `sigmoid` or `linear`: what makes predictions of the outputs.
        kwargs: Arguments of every Keras layer.

    Source:
        Ilse et al. (2018), Attention-based Deep Multiple Instance Learning, arXiv:1802.04712.
    """

    def __init__(
        self,
        how: str = "mean",
        *,
        top: int = 3,
        units: int = 32,
        activation: str = "softmax",
        **kwargs: Setting,
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.how, self.top, self.units, self.activation = how, top, units, activation
        if how not in AGGREGATES:
            raise ValueError(f"Expected aggregate {', '.join(AGGREGATES)}, received {how!r}.")
        if how == "attention":
            self.hidden = keras.layers.Dense(units, activation="tanh", dtype="float32", name="hidden")
            self.score = keras.layers.Dense(1, use_bias=False, dtype="float32", name="score")

    def build(
        self, logits_shape: tuple[int | None, ...], features_shape: Setting = None, **_: Setting
    ) -> None:
        """Create the weights of the attention, if it is used.

        Args:
            logits_shape: [B, N, K].
            features_shape: [B, N, F] of the attention's input; None for the logits.
        """
        if self.how == "attention":
            self.hidden.build(features_shape or logits_shape)
            self.score.build((*(features_shape or logits_shape)[:-1], self.units))

    def call(self, logits: Tensor, features: Tensor = None, counts: Tensor = None) -> Tensor:
        """Return the outputs of volumes.

        Args:
            logits: Outputs of the slices, [B, N, K].
            features: Input of the attention, [B, N, F]; None for the logits.
            counts: 1.0 or 0.0 per slice, [B, N]: whether the slice counts; None if all do.

        Returns:
            Float32 [B, K].
        """
        if self.activation != "softmax":
            return self._aggregate_apart(logits, features, counts)
        scores = _log_softmax(logits, axis=2)
        excluded = 0.0 if counts is None else (1.0 - counts)[..., None] * EXCLUDED
        if self.how == "attention":
            attention = self.score(self.hidden(logits if features is None else features)) + excluded
            return ops.logsumexp(scores + _log_softmax(attention, axis=1), axis=1)
        scores = scores + excluded
        if self.how == "max":
            scores = ops.max(scores, axis=1)
        elif self.how == "topk":
            highest, _ = ops.top_k(ops.swapaxes(scores, 1, 2), min(self.top, logits.shape[1]))
            scores = ops.logsumexp(highest, axis=-1)
        else:
            scores = ops.logsumexp(scores, axis=1)
        return ops.log_softmax(scores, axis=-1)

    def _aggregate_apart(self, outputs: Tensor, features: Tensor, counts: Tensor) -> Tensor:
        """Return the outputs of volumes, each column apart: findings, or a number."""
        outputs = ops.cast(outputs, "float32")
        excluded = 0.0 if counts is None else (1.0 - counts)[..., None] * EXCLUDED  # [B, N, 1]
        if self.how == "max":
            return ops.max(outputs + excluded, axis=1)
        if self.how == "topk":
            count = min(self.top, outputs.shape[1])
            highest, _ = ops.top_k(ops.swapaxes(outputs + excluded, 1, 2), count)  # [B, K, top]
            outputs = ops.swapaxes(highest, 1, 2)
            # Fewer slices than `top` may count.
            excluded = ops.where(outputs < EXCLUDED / 2, EXCLUDED, 0.0)
        weights = excluded + ops.zeros_like(outputs)
        if self.how == "attention":
            weights = weights + self.score(self.hidden(outputs if features is None else features))
        log_weights = _log_softmax(weights, axis=1)  # [B, N, K]
        if self.activation == "linear":
            return ops.sum(ops.exp(log_weights) * ops.where(log_weights < EXCLUDED / 2, 0.0, outputs), axis=1)
        present = ops.logsumexp(ops.log_sigmoid(outputs) + log_weights, axis=1)
        absent = ops.logsumexp(ops.log_sigmoid(-outputs) + log_weights, axis=1)
        return present - absent

    def compute_output_shape(
        self,
        logits_shape: tuple[int | None, ...],
        *_: Setting,
        **__: Setting,
    ) -> tuple[int | None, ...]:
        """Return [B, K]."""
        return (logits_shape[0], logits_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Return the settings."""
        own = {"how": self.how, "top": self.top, "units": self.units}
        if self.activation != "softmax":  # files of classes stay as they were
            own["activation"] = self.activation
        return {**super().get_config(), **own}


def _log_softmax(values: Tensor, *, axis: int) -> Tensor:
    """Return the log-softmax of values [B, N, K] along axis 1 or 2.

    That axis is the last one of a matrix meanwhile: OpenVINO (2026.4) moves a transposition past a
    log-softmax without changing the axis of the latter, but not past a reshape.
    """
    last = ops.swapaxes(values, 1, 2) if axis == 1 else values
    rows = ops.log_softmax(ops.reshape(last, (-1, last.shape[2])), axis=-1)
    apart = ops.reshape(rows, (-1, *last.shape[1:]))
    return ops.swapaxes(apart, 1, 2) if axis == 1 else apart
