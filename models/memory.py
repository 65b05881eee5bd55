"""What a training step keeps in memory: weights, gradients, optimiser slots, and what backward reads.

An activation is kept when a gradient needs it: a convolution's needs its input, a ReLU's its own output, that
of an addition neither. So of convolution, normalisation and ReLU two tensors stay, not three.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from voxlift.models.backend import Tensor
from voxlift.models.complexity import BYTES, VIEWS, visit_operations

WEIGHT_BYTES = 4  # weights, gradients and slots are float32 in every precision
READS_NOTHING = frozenset(
    {"Add", "Average", "Subtract", "Concatenate", "Rescaling", "TrilinearUpSampling3D", "FoldSlices"}
    | {"GlobalAveragePooling2D", "GlobalAveragePooling3D", "AveragePooling2D", "AveragePooling3D"}
    | {f"{kind}{rank}D" for kind in ("ZeroPadding", "Cropping", "UpSampling") for rank in (2, 3)}
)
DROPS = frozenset({"Dropout", "SpatialDropout2D", "SpatialDropout3D"})  # a mask of one byte per value
READS_OUTPUT = frozenset({"relu", "relu6", "sigmoid", "tanh", "softmax", "elu", "leaky_relu"})
READS_INPUT_TOO = frozenset(
    {"MaxPooling2D", "MaxPooling3D", "GlobalMaxPooling2D", "GlobalMaxPooling3D", "Maximum", "Minimum"}
)


@dataclass(frozen=True)
class TrainingMemory:
    """The bytes of a training step, by what they are for; the last two are per sample of the batch."""

    weights: int
    gradients: int
    slots: int
    activations: int
    passing: int

    @property
    def fixed(self) -> int:
        """What a batch of any size needs."""
        return self.weights + self.gradients + self.slots

    @property
    def per_sample(self) -> int:
        """What one more sample in the batch adds."""
        return self.activations + self.passing

    def total(self, batch_size: int) -> int:
        """The bytes of a step with `batch_size` samples."""
        return self.fixed + batch_size * self.per_sample

    def shared_by(self, devices: int) -> "TrainingMemory":
        """Return what each of several devices needs: all weights, and its part of every batch's samples.

        >>> TrainingMemory(100, 100, 200, activations=50, passing=10).shared_by(2).total(4)
        520
        """
        return replace(self, activations=self.activations // devices, passing=self.passing // devices)

    def largest_batch(self, free: int) -> int:
        """The largest batch that fits into `free` bytes; 0 where not even one sample does.

        >>> TrainingMemory(100, 100, 200, activations=50, passing=10).largest_batch(700)
        5
        """
        return max(0, (free - self.fixed) // self.per_sample)


def training_memory(
    model: keras.Model, *, optimizer_slots: int = 2, input_shape: Sequence[Any] | None = None
) -> TrainingMemory:
    """Return an estimate of the memory that training a model takes; its dtype policies say in which width.

    `passing` is the largest sum of an operation's inputs and outputs, as gradients on their way back. The
    workspaces of kernels, and what the engine itself takes, come on top.

    Args:
        model: A Functional or Sequential model.
        optimizer_slots: Values that the optimiser keeps per weight (Adam 2, momentum 1, plain descent 0).
        input_shape: See `models.complexity.layer_costs`.

    Raises:
        ValueError: What `layer_costs` raises.
    """
    ledger = _Ledger()
    visit_operations(model, ledger.visit, input_shape=input_shape)
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    return TrainingMemory(
        weights=WEIGHT_BYTES * model.count_params(),
        gradients=WEIGHT_BYTES * trainable,
        slots=WEIGHT_BYTES * trainable * optimizer_slots,
        activations=sum(ledger.kept.values()) + ledger.masks,
        passing=ledger.passing,
    )


class _Ledger:
    """Which tensors some gradient reads, each once however many read it."""

    def __init__(self) -> None:
        self.kept: dict[int, int] = {}
        self.masks = 0
        self.passing = 0
        self.sizes: dict[int, int] = {}  # bytes of a tensor, as its producer computes it
        self.roots: dict[int, int] = {}  # of a view: the tensor whose memory it shows
        self.tensors: list[Tensor] = []  # alive, so that no two share an identity

    def visit(self, operation: Any, _: str, inputs: Tensor, outputs: Tensor) -> None:  # noqa: ANN401  # Keras's operations are untyped
        """Account for one operation, see `visit_operations`."""
        sources = [leaf for leaf in keras.tree.flatten(inputs) if isinstance(leaf, keras.KerasTensor)]
        results = keras.tree.flatten(outputs)
        self.tensors += [*sources, *results]
        width = _width(operation)
        for tensor in sources:  # the model's own inputs come cast to what reads them
            self.sizes.setdefault(id(tensor), width * math.prod(tensor.shape))
        if type(operation).__name__ in VIEWS:
            self.roots |= {id(result): self._root(sources[0]) for result in results if sources}
            self.sizes |= {id(result): self.sizes[self._root(result)] for result in results if sources}
            return
        self.sizes |= {id(result): width * math.prod(result.shape) for result in results}
        self._keep(operation, sources, results)
        moved = {id(tensor): self.sizes[id(tensor)] for tensor in (*sources, *results)}
        self.passing = max(self.passing, sum(moved.values()))

    def _keep(self, operation: Any, sources: list[Tensor], results: list[Tensor]) -> None:  # noqa: ANN401  # as above
        reads_input, reads_output = _gradient_reads(operation)
        for tensor in [*(sources if reads_input else ()), *(results if reads_output else ())]:
            root = self._root(tensor)
            self.kept[root] = self.sizes[root]
        if type(operation).__name__ in DROPS:
            self.masks += sum(math.prod(result.shape) for result in results)

    def _root(self, tensor: Tensor) -> int:
        return self.roots.get(id(tensor), id(tensor))


def _gradient_reads(operation: Any) -> tuple[bool, bool]:  # noqa: ANN401  # Keras's operations are untyped
    """Return whether an operation's gradient reads its inputs, and whether it reads its outputs."""
    kind = type(operation).__name__
    activation = _activation(operation)
    if kind in READS_NOTHING or kind in DROPS:
        return False, False
    if kind in {"Activation", "ReLU", "LeakyReLU", "Softmax"} or kind.lower() in READS_OUTPUT:
        reads_output = kind != "Activation" or activation in READS_OUTPUT
        return not reads_output, reads_output
    return True, kind in READS_INPUT_TOO or activation != "linear"


def _activation(operation: Any) -> str:  # noqa: ANN401  # as above
    function = getattr(operation, "activation", None)
    return str(getattr(function, "__name__", "linear"))


def _width(operation: Any) -> int:  # noqa: ANN401  # as above
    dtype = operation.compute_dtype if isinstance(operation, keras.layers.Layer) else keras.config.floatx()
    return BYTES.get(dtype, WEIGHT_BYTES)
