"""The operations that differ between Keras backends: fused kernels and gradients.

Every other module of `models` is written in `keras.ops`. TensorFlow and JAX are imported when one of these
functions first needs them.
"""

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
from keras import ops

Tensor: TypeAlias = Any  # each backend has a class of its own

FUSED_DTYPES = frozenset({"float16", "bfloat16", "float32"})
BFLOAT16_BLOCK = 16  # oneDNN's bfloat16 normalisation works on blocks of so many channels


def has_fused_batch_norm(dtype: str) -> bool:
    """Return whether this backend has a fused normalisation kernel for tensors of a dtype."""
    return bool(keras.backend.backend() == "tensorflow") and dtype in FUSED_DTYPES


def fused_batch_norm(
    inputs: Tensor,
    *,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    variance: Tensor,
    epsilon: float,
    training: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return normalised inputs, and the mean and variance used.

    Args:
        inputs: Tensor [B, ..., C] of rank 4 or 5 in float16, bfloat16 or float32.
        gamma: Scale, float32 [C].
        beta: Offset, float32 [C].
        mean: Moving mean, float32 [C], used where `training` is false.
        variance: Moving variance, float32 [C], used where `training` is false.
        epsilon: Added to the variance.
        training: Whether to use the statistics of this batch instead of the moving ones.

    Returns:
        Outputs in the shape and dtype of the inputs; mean and *biased* variance in float32, both [C].
    """
    weights = {"gamma": gamma, "beta": beta, "mean": mean, "variance": variance}
    tensors = {name: ops.convert_to_tensor(weight) for name, weight in weights.items()}
    is_fused = has_fused_batch_norm(keras.backend.standardize_dtype(inputs.dtype))
    normalise = _tensorflow_batch_norm if is_fused else _plain_batch_norm
    return normalise(inputs, **tensors, epsilon=epsilon, training=training)


def add_bias(inputs: Tensor, bias: Tensor) -> Tensor:
    """Return inputs [B, ..., C] plus a bias [C], in the dtype of the inputs.

    TensorFlow's own operation is used because its graph optimiser fuses it with the convolution before.

    Args:
        inputs: Tensor [B, ..., C].
        bias: Tensor [C] of any float dtype.
    """
    bias = ops.cast(bias, inputs.dtype)
    if keras.backend.backend() != "tensorflow":
        return inputs + bias
    return importlib.import_module("tensorflow").nn.bias_add(inputs, bias)


def has_custom_convolution(dtype: str) -> bool:
    """Return whether `convolve_volumes` supports this backend, device and dtype: TensorFlow on a CPU."""
    if keras.backend.backend() != "tensorflow" or dtype not in {"bfloat16", "float32"}:
        return False
    tf = importlib.import_module("tensorflow")
    return not tf.config.list_physical_devices("GPU")


def prefers_stacked_taps() -> bool:
    """Return whether convolutions of few channels are faster with taps stacked into channels: JAX on a GPU.

    TensorFlow on a GPU has not been measured.
    """
    if keras.backend.backend() != "jax":
        return False
    return bool(importlib.import_module("jax").default_backend() == "gpu")


def convolve_volumes(
    inputs: Tensor,
    kernel: Tensor,
    *,
    strides: Sequence[int],
    padding: str,
    compute_outputs: Callable[[Tensor, Tensor], Tensor] | None,
    compute_kernel_gradient: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Return a convolution of volumes on TensorFlow with custom computations.

    Args:
        inputs: Tensor [B, D, H, W, C].
        kernel: Tensor [kd, kh, kw, C, filters] in the dtype of the inputs.
        strides: Along depth, height and width.
        padding: `valid` or `same`.
        compute_outputs: Computes the outputs from inputs and kernel; None for TensorFlow's convolution.
        compute_kernel_gradient: Computes the kernel's gradient from the inputs and the outputs' gradient.
    """
    tf = importlib.import_module("tensorflow")
    settings = {"strides": [1, *strides, 1], "padding": padding.upper()}

    @tf.custom_gradient
    def convolve(voxels: Tensor, weights: Tensor) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor]]]:
        def gradients(upstream: Tensor) -> tuple[Tensor, Tensor]:
            input_gradient = tf.raw_ops.Conv3DBackpropInputV2(
                input_sizes=tf.shape(voxels), filter=weights, out_backprop=upstream, **settings
            )
            return input_gradient, compute_kernel_gradient(voxels, upstream)

        if compute_outputs is not None:
            return compute_outputs(voxels, weights), gradients
        return tf.raw_ops.Conv3D(input=voxels, filter=weights, **settings), gradients

    return convolve(inputs, tf.convert_to_tensor(kernel))  # the value: custom_gradient rejects variables


def float32_kernel_gradient(
    inputs: Tensor, upstream: Tensor, *, shape: Sequence[int], strides: Sequence[int], padding: str
) -> Tensor:
    """Return the gradient of a convolution's kernel, computed by TensorFlow in float32.

    Args:
        inputs: Tensor [B, D, H, W, C].
        upstream: Gradient of the outputs, [B, D', H', W', filters].
        shape: Of the kernel, (kd, kh, kw, C, filters).
        strides: Along depth, height and width.
        padding: `valid` or `same`.
    """
    tf = importlib.import_module("tensorflow")
    gradient = tf.raw_ops.Conv3DBackpropFilterV2(
        input=tf.cast(inputs, tf.float32),
        filter_sizes=list(shape),
        out_backprop=tf.cast(upstream, tf.float32),
        strides=[1, *strides, 1],
        padding=padding.upper(),
    )
    return tf.cast(gradient, inputs.dtype)


def has_fused_adam() -> bool:
    """Return whether this backend has a single kernel for a step of Adam."""
    return bool(keras.backend.backend() == "tensorflow")


def fused_adam(
    variable: Tensor,
    gradient: Tensor,
    *,
    first_moment: Tensor,
    second_moment: Tensor,
    learning_rate: Tensor,
    decay: float,
    betas: tuple[float, float],
    powers: tuple[Tensor, Tensor],
    epsilon: float,
) -> None:
    """Update a variable in place by a step of Adam with decoupled weight decay, on TensorFlow.

    Args:
        variable: A TensorFlow variable.
        gradient: Of the variable, in its shape.
        first_moment: Variable with the running mean of the gradient.
        second_moment: Variable with the running mean of its square.
        learning_rate: Scalar.
        decay: Weight decay, multiplied by the learning rate.
        betas: Decay rates of the moments.
        powers: Both betas to the power of the step's number, which starts at 1.
        epsilon: Added to the square root of the second moment.
    """
    tf = importlib.import_module("tensorflow")
    rate = tf.cast(learning_rate, variable.dtype)
    if decay:
        variable.assign_sub(variable * (rate * decay))
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=first_moment.handle,
        v=second_moment.handle,
        beta1_power=tf.cast(powers[0], variable.dtype),
        beta2_power=tf.cast(powers[1], variable.dtype),
        lr=rate,
        beta1=tf.cast(betas[0], variable.dtype),
        beta2=tf.cast(betas[1], variable.dtype),
        epsilon=tf.cast(epsilon, variable.dtype),
        grad=tf.cast(tf.convert_to_tensor(gradient), variable.dtype),
    )


def value_and_gradients(
    function: Callable[..., Tensor], *variables: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the value of a scalar function and its gradients.

    Args:
        function: Takes one tensor per variable and returns a scalar tensor.
        variables: Float tensors or arrays.

    Returns:
        The value, and one gradient per variable in that variable's shape.

    Raises:
        NotImplementedError: The backend is neither TensorFlow nor JAX.
    """
    tensors = tuple(ops.convert_to_tensor(variable) for variable in variables)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _tensorflow_gradients(function, tensors)
    if backend == "jax":
        jax = importlib.import_module("jax")
        value, gradients = jax.value_and_grad(function, argnums=tuple(range(len(tensors))))(*tensors)
        return value, tuple(gradients)
    raise NotImplementedError(
        f"Gradients need the Keras backend tensorflow or jax; KERAS_BACKEND is {backend!r}. Start again with "
        "KERAS_BACKEND=tensorflow or KERAS_BACKEND=jax."
    )


def _tensorflow_gradients(
    function: Callable[..., Tensor], tensors: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    tf = importlib.import_module("tensorflow")
    # Without the weights that it would watch by itself: their gradients would be computed, too.
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        for tensor in tensors:
            tape.watch(tensor)
        value = function(*tensors)
    return value, tuple(tape.gradient(value, tensors, unconnected_gradients="zero"))


def _tensorflow_batch_norm(
    inputs: Tensor,
    *,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    variance: Tensor,
    epsilon: float,
    training: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    tf = importlib.import_module("tensorflow")
    shape = ops.shape(inputs)
    # The statistics do not depend on how voxels are arranged, and the kernel is fastest at rank 4.
    flat = inputs if len(shape) == 4 else ops.reshape(inputs, (-1, *shape[2:]))  # [B*D, H, W, C]
    flat = _cast_for_kernel(flat)
    statistics = {} if training else {"mean": mean, "variance": variance}
    outputs, batch_mean, batch_variance = tf.compat.v1.nn.fused_batch_norm(
        flat, gamma, beta, epsilon=epsilon, is_training=training, **statistics
    )
    outputs = ops.cast(ops.reshape(outputs, shape), inputs.dtype)
    if not training:
        return outputs, mean, variance
    # The kernel's variance carries Bessel's correction; Keras averages the biased one.
    return outputs, batch_mean, batch_variance * _bessel_inverse(flat)


def _cast_for_kernel(flat: Tensor) -> Tensor:
    """Return the tensor in the dtype in which the kernel is fast.

    On a CPU, bfloat16 with a number of channels that is not a multiple of 16 uses a slow reference loop:
    8 channels on 8 x 34 x 48 x 40 voxels take 82 ms forward and backward, and 9 ms in float32.
    """
    is_bfloat = keras.backend.standardize_dtype(flat.dtype) == "bfloat16"
    if not is_bfloat or flat.shape[-1] % BFLOAT16_BLOCK == 0:
        return flat
    tf = importlib.import_module("tensorflow")
    return flat if tf.config.list_physical_devices("GPU") else ops.cast(flat, "float32")


def _bessel_inverse(flat: Tensor) -> Tensor:
    """Return (n - 1) / n for the number n of values per channel."""
    sizes = ops.shape(flat)[:-1]
    if all(isinstance(size, int) for size in sizes):
        count = math.prod(sizes)
        return (count - 1) / count
    samples = ops.cast(ops.prod(ops.stack(list(sizes))), "float32")
    return (samples - 1) / samples


def _plain_batch_norm(
    inputs: Tensor,
    *,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    variance: Tensor,
    epsilon: float,
    training: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = inputs.dtype
    inputs = ops.cast(inputs, keras.backend.result_type(dtype, "float32"))
    if training:
        mean, variance = ops.moments(inputs, axes=tuple(range(len(inputs.shape) - 1)))
    outputs = ops.batch_normalization(
        inputs, mean, variance, axis=-1, offset=beta, scale=gamma, epsilon=epsilon
    )
    return ops.cast(outputs, dtype), mean, variance
