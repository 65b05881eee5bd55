"""Names for values whose classes Keras does not declare."""

from typing import Any, TypeAlias

Model: TypeAlias = Any  # a Functional or Sequential model
Layer: TypeAlias = Any  # a layer, a nested model or a raw operation
LayerClass: TypeAlias = Any  # a class of layers
Tensor: TypeAlias = Any  # a symbolic tensor
Value: TypeAlias = Any  # whatever a user, a call's argument or a configuration may hold
