"""The implementations of one framework for `train_step.py`, in a process of its own.

`train_step.py` starts it with framework, network, precision, side, batch and threads. It prints one JSON line
when it is ready and one per request on standard input, and ends with its input.
"""

import importlib
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

Step: TypeAlias = Callable[[], object]  # runs one step to its end
Model: TypeAlias = Any
Tensor: TypeAlias = Any
CLASSES = 2


@dataclass(frozen=True)
class Case:
    """The network, precision and sizes that are timed."""

    network: str
    precision: str
    side: int
    batch: int
    threads: int


@dataclass(frozen=True)
class Framework:
    """A network's trainable parameters, its implementations, and their steps by name and mode."""

    parameters: int
    implementations: tuple[str, ...]
    build_step: Callable[[str, str], Step]


def main() -> int:
    """Serve requests until standard input ends."""
    framework, network, precision, *numbers = sys.argv[1:]
    case = Case(network, precision, *map(int, numbers))
    # Output of the frameworks must not mix with the replies.
    replies, sys.stdout = sys.stdout, sys.stderr
    builders = {"tensorflow": build_keras, "torch": build_torch}
    built = builders[framework](case)
    steps: dict[tuple[str, str], Step] = {}
    compiling: dict[tuple[str, str], float] = {}
    ready = {
        "framework": framework,
        "parameters": built.parameters,
        "implementations": built.implementations,
    }
    print(json.dumps(ready), file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        key = (request["implementation"], request["mode"])
        if key not in steps:
            began = time.perf_counter()
            steps[key] = built.build_step(*key)
            steps[key]()  # traces, compiles and allocates
            steps[key]()
            compiling[key] = time.perf_counter() - began
        times = time_steps(steps[key], most=request["steps"], seconds=request["seconds"])
        print(json.dumps({"times": times, "compiling": compiling[key]}), file=replies, flush=True)
    return 0


def time_steps(step: Step, *, most: int, seconds: float) -> list[float]:
    """Return the seconds of each step.

    Args:
        step: Runs one step to its end.
        most: Maximum number of steps.
        seconds: No step begins after so many seconds.
    """
    times: list[float] = []
    step()  # warms the caches
    while len(times) < most and sum(times) < seconds:
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return times


def build_keras(case: Case) -> Framework:
    """Return Voxlift's network and its convolutions alone."""
    import keras
    import step_networks
    import tensorflow as tf

    from voxlift.app.runtime.setup import prepare_processor, protect_shallow_convolutions

    prepare_processor()  # as every command does
    tf.config.threading.set_intra_op_parallelism_threads(case.threads)
    keras.config.set_dtype_policy("float32" if case.precision == "float32" else "mixed_bfloat16")
    model = step_networks.build_keras(case.network, case.side, CLASSES)
    protect_shallow_convolutions(model)

    def build_step(name: str, mode: str) -> Step:
        if name == "voxlift openvino":
            return build_converted_step(model, case)
        build = build_keras_step if name == "voxlift" else build_convolutions_step
        return build(model, case, training=mode == "training")

    parameters = sum(int(variable.value.shape.num_elements()) for variable in model.trainable_variables)
    names = ("voxlift", *(["voxlift openvino"] if has_openvino() else []), "convolutions alone")
    return Framework(parameters, names, build_step)


def has_openvino() -> bool:
    """Return whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


def build_converted_step(model: Model, case: Case) -> Step:
    """Return a step of inference as `voxlift-predict engine=openvino` computes it.

    Args:
        model: The lifted network.
        case: Network, precision and sizes.
    """
    import numpy as np

    from voxlift.app.inference.engine import convert_network
    from voxlift.models.batch_norm import fold_batch_norm

    shape = (case.batch, *[case.side] * 3, 1)
    voxels = np.random.default_rng(0).normal(size=shape).astype("float32")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        model.save(file)
        converted, _ = convert_network(fold_batch_norm(model), file, (voxels,), None)
    return lambda: converted.predict_on_batch(voxels)


def build_keras_step(model: Model, case: Case, *, training: bool) -> Step:
    """Return a training or inference step of the network, without copies from the host.

    Args:
        model: The lifted network.
        case: Network, precision and sizes.
        training: Whether a step trains or scores.
    """
    import keras
    import tensorflow as tf

    from voxlift.models.batch_norm import fold_batch_norm
    from voxlift.models.optimizers import FusedAdamW

    voxels = tf.random.normal((case.batch, *[case.side] * 3, 1))
    labels = tf.zeros(case.batch, tf.int32)
    if not training:
        scorer = fold_batch_norm(model)  # as every command that scores does
        infer = tf.function(lambda: scorer(voxels, training=False))
        return lambda: infer().numpy()
    optimizer = FusedAdamW(1e-4)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])  # as voxlift-train does
    optimizer.build(model.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def train() -> Any:  # noqa: ANN401 - a tensor
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(voxels, training=True))
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    return lambda: train().numpy()


def build_convolutions_step(model: Model, case: Case, *, training: bool) -> Step:
    """Return a step of the model's convolutions alone, each on data of its own.

    Args:
        model: The lifted network.
        case: Network, precision and sizes.
        training: Whether gradients are computed too.
    """
    import keras
    import tensorflow as tf

    jobs = [
        (
            tf.random.normal((case.batch, *layer.input.shape[1:]), dtype=layer.compute_dtype),
            tf.cast(layer.kernel, layer.compute_dtype),
            {"strides": [1, *layer.strides, 1], "padding": layer.padding.upper()},
        )
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv3D)
    ]

    @tf.function
    def step() -> Any:  # noqa: ANN401 - a tensor
        results: list[Tensor] = []
        for index, (voxels, kernel, settings) in enumerate(jobs):
            needs_input_gradient = training and index > 0  # the first layer's input is the data
            results += convolve(
                voxels, kernel, settings, kernel_gradient=training, input_gradient=needs_input_gradient
            )
        return tf.add_n([tf.cast(tensor[0, 0, 0, 0, 0], tf.float32) for tensor in results])

    return lambda: step().numpy()


def convolve(
    voxels: Tensor, kernel: Tensor, settings: dict[str, Any], *, kernel_gradient: bool, input_gradient: bool
) -> list[Tensor]:
    """Return the outputs of a convolution and its gradients, with the outputs as upstream gradient.

    Args:
        voxels: Tensor [B, D, H, W, C].
        kernel: Tensor [kd, kh, kw, C, filters].
        settings: Strides and padding.
        kernel_gradient: Whether to compute the gradient of the kernel.
        input_gradient: Whether to compute the gradient of the voxels.
    """
    import tensorflow as tf

    outputs = tf.raw_ops.Conv3D(input=voxels, filter=kernel, **settings)
    results = [outputs]
    if kernel_gradient:
        gradient = tf.raw_ops.Conv3DBackpropFilterV2
        results.append(gradient(input=voxels, filter_sizes=kernel.shape, out_backprop=outputs, **settings))
    if input_gradient:
        gradient = tf.raw_ops.Conv3DBackpropInputV2
        results.append(gradient(input_sizes=voxels.shape, filter=kernel, out_backprop=outputs, **settings))
    return results


def build_torch(case: Case) -> Framework:
    """Return the network of PyTorch in both memory formats, compiled, and converted to OpenVINO.

    Raises:
        SystemExit: If PyTorch or MONAI is not installed.
    """
    import step_networks

    # MONAI would import TensorFlow, and both frameworks in one process may crash.
    sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]  # None forbids the import
    try:
        torch = importlib.import_module("torch")
        network = step_networks.build_torch(torch, case.network, CLASSES)
    except ImportError as error:
        sys.exit(f"{error}. Run pip install -r benchmarks/requirements.txt, or use --without-torch.")
    torch.set_num_threads(case.threads)

    def build_step(name: str, mode: str) -> Step:
        if name == "openvino":
            return build_openvino_step(torch, case)
        is_compiled = name == "torch compiled"
        last = is_compiled or "last" in name
        return build_torch_step(torch, case, last=last, training=mode == "training", is_compiled=is_compiled)

    parameters = sum(weight.numel() for weight in network.parameters())
    names = ("torch contiguous", "torch channels last", "torch compiled")
    return Framework(parameters, (*names, "openvino") if has_openvino() else names, build_step)


def build_openvino_step(torch: Any, case: Case) -> Step:  # noqa: ANN401 - the module
    """Return a step of inference in OpenVINO, of the network of PyTorch.

    Args:
        torch: The module.
        case: Network, precision and sizes.
    """
    import openvino
    import step_networks

    if (
        sys.modules.get("tensorflow", openvino) is None
    ):  # the conversion asks for it, and forgives its absence
        del sys.modules["tensorflow"]
    network = step_networks.build_torch(torch, case.network, CLASSES).eval()
    voxels = torch.randn(case.batch, 1, *[case.side] * 3)
    model = openvino.convert_model(network, example_input=voxels, input=[list(voxels.shape)])
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if case.precision == "bfloat16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": case.threads,
    }
    compiled = openvino.Core().compile_model(model, "CPU", options)
    with torch.inference_mode():
        expected = network(voxels).numpy()
    found = compiled(voxels.numpy())[0]
    allowed = (0.05 if case.precision == "bfloat16" else 1e-3) * max(1.0, float(abs(expected).max()))
    if abs(found - expected).max() > allowed:
        raise RuntimeError("OpenVINO computes other logits than the network that it was made from.")
    values = voxels.numpy()
    return lambda: compiled(values)[0]


def build_torch_step(
    torch: Any,  # noqa: ANN401 - the module
    case: Case,
    *,
    last: bool,
    training: bool,
    is_compiled: bool = False,
) -> Step:
    """Return the same step in PyTorch.

    Args:
        torch: The module.
        case: Network, precision and sizes.
        last: Whether the memory format is channels last.
        training: Whether a step trains or scores.
        is_compiled: Whether torch.compile compiles it, for inference with frozen weights.
    """
    import step_networks

    layout = torch.channels_last_3d if last else torch.contiguous_format
    network = step_networks.build_torch(torch, case.network, CLASSES).to(memory_format=layout)
    voxels = torch.randn(case.batch, 1, *[case.side] * 3).to(memory_format=layout)
    labels = torch.zeros(case.batch, dtype=torch.long)
    is_half = case.precision == "bfloat16"
    network.train(training)
    call = network
    if is_compiled:
        importlib.import_module("torch._inductor.config").freezing = not training
        call = torch.compile(network)

    def infer() -> float:
        # Frozen weights need no_grad: under inference_mode Inductor does not freeze.
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            return call(voxels).float().sum().item()

    if not training:
        return infer
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)

    def train() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            loss = torch.nn.functional.cross_entropy(call(voxels).float(), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return train


if __name__ == "__main__":
    sys.exit(main())
