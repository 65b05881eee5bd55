"""The memory of a training step: weights, gradients, optimiser slots, and the activations kept for backward.

An activation is kept if a gradient needs it: that of a convolution needs the input, that of a ReLU the
output, that of an addition neither. So of convolution, normalisation and ReLU two tensors are kept, not
three. Before the first trainable weight, as in a frozen network, nothing is kept.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from voxlift.models.backend import Tensor
from voxlift.models.complexity import BYTES, VIEWS, visit_operations

WEIGHT_BYTES = 4  # weights, gradients and slots are float32 in every precision
NEEDS_NOTHING = frozenset(
    {"Add", "Average", "Subtract", "Concatenate", "Rescaling", "TrilinearUpSampling3D", "FoldSlices"}
    | {"GlobalAveragePooling2D", "GlobalAveragePooling3D", "AveragePooling2D", "AveragePooling3D"}
    | {f"{kind}{rank}D" for kind in ("ZeroPadding", "Cropping", "UpSampling") for rank in (2, 3)}
)
# They keep a mask, one byte per value.
DROPOUTS = frozenset({"Dropout", "SpatialDropout2D", "SpatialDropout3D"})
ATTENTIONS = frozenset({"MultiHeadAttention", "TokenAttention3D"})
NEEDS_OUTPUT = frozenset({"relu", "relu6", "sigmoid", "tanh", "softmax", "elu", "leaky_relu"})
NEEDS_BOTH = frozenset(
    {"MaxPooling2D", "MaxPooling3D", "GlobalMaxPooling2D", "GlobalMaxPooling3D", "Maximum", "Minimum"}
)


@dataclass(frozen=True)
class TrainingMemory:
    """The memory of a training step, in bytes.

    Attributes:
        weights: Of the model.
        gradients: Of the trainable weights.
        slots: The optimiser's values for each trainable weight.
        activations: Kept for the backward pass, per sample.
        transient: The largest sum of an operation's inputs and outputs, as gradients in the backward pass,
            per sample.
    """

    weights: int
    gradients: int
    slots: int
    activations: int
    transient: int

    @property
    def fixed(self) -> int:
        """Bytes that do not depend on the batch size."""
        return self.weights + self.gradients + self.slots

    @property
    def per_sample(self) -> int:
        """Bytes that each sample of the batch adds."""
        return self.activations + self.transient

    def total(self, batch_size: int) -> int:
        """Return the bytes of a step with `batch_size` samples."""
        return self.fixed + batch_size * self.per_sample

    def per_device(self, devices: int) -> "TrainingMemory":
        """Return the memory of each device in data parallel training: all weights, a part of each batch.

        >>> TrainingMemory(100, 100, 200, activations=50, transient=10).per_device(2).total(4)
        520
        """
        return replace(self, activations=self.activations // devices, transient=self.transient // devices)

    def largest_batch(self, free: int) -> int:
        """Return the largest batch that fits into `free` bytes; 0 if not even one sample does.

        >>> TrainingMemory(100, 100, 200, activations=50, transient=10).largest_batch(700)
        5
        """
        return max(0, (free - self.fixed) // self.per_sample)


def training_memory(
    model: keras.Model, *, optimizer_slots: int = 2, input_shape: Sequence[Any] | None = None
) -> TrainingMemory:
    """Return an estimate of the memory of training a model in the precision of its dtype policies.

    It does not include the workspaces of kernels and the memory of the framework itself.

    Args:
        model: A Functional or Sequential model.
        optimizer_slots: Values that the optimiser keeps per weight (Adam 2, momentum 1, plain SGD 0).
        input_shape: See `models.complexity.layer_costs`.

    Raises:
        ValueError: See `models.complexity.layer_costs`.
    """
    kept = _KeptTensors()
    visit_operations(model, kept.visit, input_shape=input_shape)
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    return TrainingMemory(
        weights=WEIGHT_BYTES * model.count_params(),
        gradients=WEIGHT_BYTES * trainable,
        slots=WEIGHT_BYTES * trainable * optimizer_slots,
        activations=sum(kept.sizes_kept.values()) + kept.mask_bytes + kept.attention_bytes,
        transient=kept.transient,
    )


class _KeptTensors:
    """The tensors that gradients need, each counted once however many need it."""

    def __init__(self) -> None:
        self.sizes_kept: dict[int, int] = {}
        self.mask_bytes = 0
        self.attention_bytes = 0
        self.transient = 0
        self.trained: set[int] = set()  # tensors that depend on trainable weights
        # Bytes of each tensor, in the precision of the operation that computes it.
        self.sizes: dict[int, int] = {}
        self.base: dict[int, int] = {}  # of a view: the tensor whose memory it shares
        self.tensors: list[Tensor] = []  # kept alive, so that no two have the same id

    def visit(self, operation: Any, _: str, inputs: Tensor, outputs: Tensor) -> None:  # noqa: ANN401  # Keras's operations are untyped
        """Count the tensors of one operation, see `visit_operations`."""
        sources = [leaf for leaf in keras.tree.flatten(inputs) if isinstance(leaf, keras.KerasTensor)]
        results = keras.tree.flatten(outputs)
        self.tensors += [*sources, *results]
        is_trained = bool(getattr(operation, "trainable_variables", ())) or any(
            id(tensor) in self.trained for tensor in sources
        )
        self.trained |= {id(tensor) for tensor in results if is_trained}
        width = _width(operation)
        for tensor in sources:  # the model's inputs are cast to the precision of the first operation
            self.sizes.setdefault(id(tensor), width * math.prod(tensor.shape))
        if type(operation).__name__ in VIEWS:
            self.base |= {id(result): self._base_of(sources[0]) for result in results if sources}
            self.sizes |= {id(result): self.sizes[self._base_of(result)] for result in results if sources}
            return
        self.sizes |= {id(result): width * math.prod(result.shape) for result in results}
        if is_trained:
            self._keep(operation, sources, results)
        involved = {id(tensor): self.sizes[id(tensor)] for tensor in (*sources, *results)}
        self.transient = max(self.transient, sum(involved.values()))

    def _keep(self, operation: Any, sources: list[Tensor], results: list[Tensor]) -> None:  # noqa: ANN401  # as above
        needs_input, needs_output = _gradient_needs(operation)
        for tensor in [*(sources if needs_input else ()), *(results if needs_output else ())]:
            base = self._base_of(tensor)
            self.sizes_kept[base] = self.sizes[base]
        if type(operation).__name__ in DROPOUTS:
            self.mask_bytes += sum(math.prod(result.shape) for result in results)
        if type(operation).__name__ in ATTENTIONS:
            self.attention_bytes += _attention_bytes(operation, sources[0].shape, sources[-1].shape)

    def _base_of(self, tensor: Tensor) -> int:
        return self.base.get(id(tensor), id(tensor))


def _attention_bytes(operation: Any, query: Sequence[int], keys: Sequence[int]) -> int:  # noqa: ANN401  # as above
    """Return what attention keeps inside: projections, and a weight per head, query and key.

    Args:
        operation: The layer.
        query: Shape [B, T, C] of the queries.
        keys: Shape [B, S, C] of keys and values.
    """
    width, key_dim, value_dim = _width(operation), operation.key_dim, operation.value_dim
    heads = query[0] * operation.num_heads
    projections = query[1] * (key_dim + value_dim) + keys[1] * (key_dim + value_dim)
    # The softmax is computed in float32 at least; its result is kept once more if the values are narrower.
    weights = query[1] * keys[1] * (WEIGHT_BYTES + (width if width < WEIGHT_BYTES else 0))
    return int(heads * (width * projections + weights))


def _gradient_needs(operation: Any) -> tuple[bool, bool]:  # noqa: ANN401  # Keras's operations are untyped
    """Return whether an operation's gradient needs its inputs, and whether it needs its outputs."""
    kind = type(operation).__name__
    activation = _activation(operation)
    if kind in NEEDS_NOTHING or kind in DROPOUTS:
        return False, False
    if kind in {"Activation", "ReLU", "LeakyReLU", "Softmax"} or kind.lower() in NEEDS_OUTPUT:
        needs_output = kind != "Activation" or activation in NEEDS_OUTPUT
        return not needs_output, needs_output
    return True, kind in NEEDS_BOTH or activation != "linear"


def _activation(operation: Any) -> str:  # noqa: ANN401  # as above
    function = getattr(operation, "activation", None)
    return str(getattr(function, "__name__", "linear"))


def _width(operation: Any) -> int:  # noqa: ANN401  # as above
    dtype = operation.compute_dtype if isinstance(operation, keras.layers.Layer) else keras.config.floatx()
    return BYTES.get(dtype, WEIGHT_BYTES)
