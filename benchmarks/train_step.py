"""Time of a training step and of inference: ours, PyTorch's best, and the convolutions alone, in one run.

    python benchmarks/train_step.py --network cnn resnet18 densenet121 --precision float32 bfloat16

The contestants take turns, several rounds, and the best time of each counts. The floor is the same
convolutions, forward and both gradients, with nothing between them. On a virtual machine run it under a tool
that keeps the CPUs awake.
"""

import argparse
import importlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

Tensor: TypeAlias = Any  # frameworks are imported late, so their classes have no names here
Model: TypeAlias = Any
Torch: TypeAlias = Any  # the module

CLASSES = 2
STAGES = {"cnn": (32, 64, 128), "resnet18": (64, 128, 256, 512)}
SIDES = {"cnn": 32, "resnet18": 48, "densenet121": 48}


@dataclass(frozen=True)
class Case:
    """One line of the comparison."""

    network: str
    precision: str
    training: bool
    batch: int
    side: int


@dataclass(frozen=True)
class Contestant:
    """A name and a function that runs one step to its end."""

    name: str
    step: Callable[[], object]


def main() -> int:
    """Print a table per case; return the exit status."""
    options = parse_arguments()
    torch = import_torch(required=not options.without_torch)
    limit_threads(options.threads, torch)
    for network in options.network:
        for precision in options.precision:
            for training in (True, False):
                side = options.side or SIDES[network]
                run_case(Case(network, precision, training, options.batch, side), torch, options)
    return 0


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument(
        "--precision", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"]
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, help="voxels per side instead of the network's own")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each contestant takes")
    parser.add_argument("--steps", type=int, default=5, help="timed steps per turn")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--without-torch", action="store_true", help="only ours and the floor")
    return parser.parse_args()


def import_torch(*, required: bool) -> Torch:
    """Return PyTorch, or None where it is not asked for; without it, exit with a sentence."""
    if not required:
        return None
    try:
        return importlib.import_module("torch")
    except ImportError:
        sys.exit(
            "PyTorch is not installed. Run pip install -r benchmarks/requirements.txt, or leave it out with "
            "--without-torch."
        )


def limit_threads(threads: int, torch: Torch) -> None:
    """Give both frameworks the same number of threads."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    if torch is not None:
        torch.set_num_threads(threads)


def run_case(case: Case, torch: Torch, options: argparse.Namespace) -> None:
    """Time every contestant of a case in turns and print the table."""
    contestants = list(build_contestants(case, torch))
    best = take_turns(contestants, rounds=options.rounds, steps=options.steps)
    kind = "training" if case.training else "inference"
    print(f"\n{case.network} {case.side}^3, batch {case.batch}, {case.precision}, {kind}")
    floor = best["convolution floor"]
    for name, seconds in sorted(best.items(), key=lambda item: item[1]):
        rate = case.batch / seconds
        print(
            f"  {name:32} {seconds * 1e3:9.1f} ms {rate:9.1f} volumes/s {floor / seconds:6.0%} of the floor"
        )
    peers = [seconds for name, seconds in best.items() if name.startswith("torch")]
    if peers:
        print(f"  ours is {min(peers) / best['voxlift']:.2f} times as fast as PyTorch's best")


def take_turns(contestants: list[Contestant], *, rounds: int, steps: int) -> dict[str, float]:
    """Return each contestant's best time per step in seconds."""
    best = {contestant.name: float("inf") for contestant in contestants}
    for contestant in contestants:
        contestant.step()  # traces and allocates
        contestant.step()
    for _ in range(rounds):
        for contestant in contestants:
            for _ in range(steps):
                begin = time.perf_counter()
                contestant.step()
                best[contestant.name] = min(best[contestant.name], time.perf_counter() - begin)
    return best


def build_contestants(case: Case, torch: Torch) -> Iterator[Contestant]:
    """Yield ours, the floor, and PyTorch in both memory formats."""
    import keras

    keras.config.set_dtype_policy("float32" if case.precision == "float32" else "mixed_bfloat16")
    model = build_keras(case.network, case.side)
    yield Contestant("voxlift", keras_step(model, case))
    yield Contestant("convolution floor", floor_step(model, case))
    if torch is not None:
        for last in (False, True):
            name = f"torch {'channels last' if last else 'contiguous'}"
            yield Contestant(name, torch_step(torch, case, channels_last=last))


def build_keras(network: str, side: int) -> Model:
    """Return the 3D network of a case."""
    import keras

    if network == "densenet121":
        from models import to_3d  # built by the lifting, which may come later than this file

        flat = keras.applications.DenseNet121(
            include_top=True,
            weights=None,
            input_shape=(side, side, 1),
            classes=CLASSES,
            classifier_activation=None,
        )
        return to_3d(flat, depth=side)
    inputs = keras.Input((side, side, side, 1))
    build = build_cnn if network == "cnn" else build_resnet18
    return keras.Model(inputs, build(inputs))


def build_cnn(x: Tensor) -> Tensor:
    """Return the logits of the demo's baseline in 3D."""
    from keras import layers

    for stage, filters in enumerate(STAGES["cnn"]):
        x = layers.MaxPooling3D(2)(x) if stage else x
        x = layers.ReLU()(normalised(x, filters))
    return head(x)


def build_resnet18(x: Tensor) -> Tensor:
    """Return the logits of ResNet-18 in 3D: stem of 7, four stages of two basic blocks."""
    from keras import layers

    x = layers.ReLU()(normalised(x, 64, size=7, stride=2))
    x = layers.MaxPooling3D(3, strides=2, padding="same")(x)
    for stage, filters in enumerate(STAGES["resnet18"]):
        for block in range(2):
            stride = 2 if stage and not block else 1
            shortcut = x if stride == 1 else normalised(x, filters, size=1, stride=2)
            y = layers.ReLU()(normalised(x, filters, stride=stride))
            x = layers.ReLU()(layers.Add()([normalised(y, filters), shortcut]))
    return head(x)


def normalised(x: Tensor, filters: int, *, size: int = 3, stride: int = 1) -> Tensor:
    """Return a convolution and its normalisation."""
    from keras import layers

    from models.layers import FusedBatchNormalization

    x = layers.Conv3D(filters, size, strides=stride, padding="same", use_bias=False)(x)
    return FusedBatchNormalization(momentum=0.9)(x)


def head(x: Tensor) -> Tensor:
    """Return float32 logits of pooled features."""
    from keras import layers

    return layers.Dense(CLASSES, dtype="float32")(layers.GlobalAveragePooling3D()(x))


def keras_step(model: Model, case: Case) -> Callable[[], object]:
    """Return a training or inference step of a Keras model, without host copies."""
    import keras
    import tensorflow as tf

    voxels = tf.random.normal((case.batch, *[case.side] * 3, 1))
    labels = tf.zeros(case.batch, tf.int32)
    optimizer = keras.optimizers.AdamW(1e-4)
    optimizer.build(model.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def train() -> Tensor:
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(voxels, training=True))
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    @tf.function
    def infer() -> Tensor:
        return model(voxels, training=False)

    step = train if case.training else infer
    return lambda: step().numpy()


def floor_step(model: Model, case: Case) -> Callable[[], object]:
    """Return a step of the model's convolutions alone, each on data of its own, gradients too in training."""
    import tensorflow as tf

    dtype = case.precision
    jobs = [
        (
            tf.random.normal((case.batch, *layer.input.shape[1:]), dtype=dtype),
            tf.cast(layer.kernel, dtype),
            [1, *layer.strides, 1],
            layer.padding.upper(),
            place == 0,
        )
        for place, layer in enumerate(part for part in model.layers if type(part).__name__ == "Conv3D")
    ]

    @tf.function
    def step() -> Tensor:
        sinks = []
        for voxels, kernel, strides, padding, is_first in jobs:
            outputs = tf.nn.conv3d(voxels, kernel, strides, padding)
            sinks.append(outputs[0, 0, 0, 0, 0])
            if case.training:
                # The first layer's input needs no gradient.
                back = tf.raw_ops.Conv3DBackpropFilterV2
                sinks.append(
                    back(
                        input=voxels,
                        filter_sizes=kernel.shape,
                        out_backprop=outputs,
                        strides=strides,
                        padding=padding,
                    )[0, 0, 0, 0, 0]
                )
                if not is_first:
                    sinks.append(
                        tf.raw_ops.Conv3DBackpropInputV2(
                            input_sizes=voxels.shape,
                            filter=kernel,
                            out_backprop=outputs,
                            strides=strides,
                            padding=padding,
                        )[0, 0, 0, 0, 0]
                    )
        return tf.add_n(sinks)

    return lambda: step().numpy()


def torch_step(torch: Torch, case: Case, *, channels_last: bool) -> Callable[[], object]:
    """Return the same step in PyTorch."""
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    network = build_torch(torch, case.network).to(memory_format=layout)
    voxels = torch.randn(case.batch, 1, *[case.side] * 3).to(memory_format=layout)
    labels = torch.zeros(case.batch, dtype=torch.long)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    is_half = case.precision == "bfloat16"
    network.train(case.training)

    def train() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            loss = torch.nn.functional.cross_entropy(network(voxels).float(), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    def infer() -> float:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            return network(voxels).float().sum().item()

    return train if case.training else infer


def build_torch(torch: Torch, network: str) -> Model:
    """Return the twin of `build_keras`: our CNN by hand, the others from MONAI."""
    if network == "cnn":
        nn, parts, channels = torch.nn, [], 1
        for stage, filters in enumerate(STAGES["cnn"]):
            parts += [nn.MaxPool3d(2)] if stage else []
            parts += [
                nn.Conv3d(channels, filters, 3, padding=1, bias=False),
                nn.BatchNorm3d(filters),
                nn.ReLU(),
            ]
            channels = filters
        return nn.Sequential(*parts, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(channels, CLASSES))
    nets = importlib.import_module("monai.networks.nets")
    if network == "resnet18":
        return nets.resnet18(spatial_dims=3, n_input_channels=1, num_classes=CLASSES, conv1_t_stride=2)
    return nets.DenseNet121(spatial_dims=3, in_channels=1, out_channels=CLASSES)


if __name__ == "__main__":
    sys.exit(main())
