"""Work per layer from shapes alone, before anything is built."""

import math
from collections.abc import Sequence

from models.lifting.flow import Shape
from models.lifting.kinds import LayerClass

WEIGHTLESS_WORK = ("PReLU", "Normalization", "LayerScale")


def count_parameters(shapes: Sequence[Shape]) -> int:
    """Return the number of values in weights of these shapes."""
    return sum(math.prod(size or 0 for size in shape) for shape in shapes)


def count_flops(
    layer_class: LayerClass, weight_shapes: Sequence[Shape], input_shape: Shape, output_shape: Shape
) -> int | None:
    """Return a layer's floating point operations for one sample: two per weight of a kernel and position.

    Args:
        layer_class: Class of the layer, of rank 2 or 3.
        weight_shapes: Shapes of its weights.
        input_shape: Shape of its input, the batch first.
        output_shape: Shape of its output, the batch first.

    Returns:
        Operations of its matrix and convolution kernels, 0 where it has none, None where a size is unknown.
    """
    name = getattr(layer_class, "__name__", "")
    kernels = [shape for shape in weight_shapes if len(shape) > 1]
    if not kernels or any(word in name for word in WEIGHTLESS_WORK):
        return 0
    # A transposed convolution slides over its input, all others over their output.
    positions = (input_shape if "Transpose" in name else output_shape)[1:-1]
    if None in positions:
        return None
    count = math.prod(size for size in positions if size is not None)
    return 2 * count * count_parameters(kernels)
