"""Training and inference on a GPU: throughput, memory, precision, the largest batch that fits, agreement.

    python benchmarks/gpu_step.py                             TensorFlow, all networks at 96^3 and 128^3
    KERAS_BACKEND=jax python benchmarks/gpu_step.py           the same on JAX, without TensorFlow
    KERAS_BACKEND=jax python benchmarks/gpu_step.py --torch   and PyTorch's twin: channels last, compiled
    python benchmarks/gpu_step.py --network demo --side 16 --batch 2 --limit 4     a trial on a CPU

The networks are the demo's baseline, a lifted ResNet-18 and a lifted DenseNet-121. Required are Keras, its
backend, rich and, of this project, `src`, `models` and `benchmarks/step_networks.py`. Every measurement runs
in a process of its own, so that neither memory nor an error of the device affects the next. The volumes are
on the device before the clock starts, for each framework. Inference is that of `voxlift-predict`: the
normalisations are folded into the convolutions. The table is printed as Markdown and written as CSV.
"""

import argparse
import csv
import fcntl
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if importlib.util.find_spec("voxlift") is None:
    # A GPU machine often has only Keras and a copy of this repository: use the source, not installed.
    # An installed package, or one on PYTHONPATH, is preferred.
    sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

NETWORKS = ("demo", "cnn", "resnet18", "densenet121")  # those of step_networks.py
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
COLUMNS = (
    "device",
    "backend",
    "network",
    "side",
    "precision",
    "batch",
    "ms_per_step",
    "volumes_per_s",
    "infer_volumes_per_s",
    "share_of_peak",
    "compile_s",
    "peak_mb",
    "largest_batch",
    "loss",
    "differs_from_float32",
)
WARM_UP, STEPS = 3, 10
PROFILED, LISTED_KERNELS = 3, 25
TRAINING_FLOPS = 3  # forward passes that a training step costs: one, and two for the gradients
# Dense FLOP/s of the makers' data sheets: float32 (TF32 where the card has it), and 16 bits.
PEAKS = {
    "H200": (494e12, 989e12),
    "H100": (494e12, 989e12),
    "A100": (156e12, 312e12),
    "L40S": (183e12, 362e12),
    "A10": (62e12, 125e12),
    "L4": (60e12, 121e12),
    "V100": (15.7e12, 125e12),
    "T4": (8.1e12, 65e12),
}
COMPARED_VOLUMES = 2  # volumes whose logits are compared: few, so that they need less memory than a step
OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "ResourceExhausted", "out of memory", "OOM when allocating")


class MeasurementError(RuntimeError):
    """A measurement that failed for another reason than memory, with the end of its error output."""


def main() -> int:
    """Measure, print the table, write the CSV file, and return the exit status."""
    options = parse_arguments()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return 0
    rows: list[dict[str, Any]] = []
    for network in options.network:
        for side in options.side:
            rows += compare_precisions(network, side, options)
            write_csv(options.output, rows)  # after each network, so that an interruption loses nothing
            if options.torch:
                rows += compare_precisions(network, side, options, engine="torch")
                write_csv(options.output, rows)
    print_table(rows)
    print(f"Table in {options.output}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--side", nargs="+", type=int, default=[96, 128], help="voxels along each axis")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--batch", type=int, default=4, help="volumes of the timed steps")
    parser.add_argument("--limit", type=int, default=256, help="largest batch to try")
    parser.add_argument("--timeout", type=float, default=600, help="seconds allowed for one measurement")
    parser.add_argument("--output", type=Path, default=Path("gpu_step.csv"))
    parser.add_argument("--torch", action="store_true", help="measure PyTorch's twin too")
    parser.add_argument("--processes", type=int, default=1, help="2: import the next while one measures")
    parser.add_argument(
        "--profile", type=Path, help="folder for the kernels of three steps, with their times"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def compare_precisions(
    network: str, side: int, options: argparse.Namespace, *, engine: str = ""
) -> list[dict[str, Any]]:
    """Return one row per precision, with the untrained network's logits compared to those in float32.

    Args:
        network: One of `NETWORKS`.
        side: Voxels along each axis.
        options: Options of the command line.
        engine: `torch` for the twin; else Keras on its backend.
    """
    own: dict[str, Any] = {"engine": engine} if engine else {}
    if options.profile:
        own["profile"] = str(options.profile)
    tasks = [
        {"network": network, "side": side, "precision": precision, **own} for precision in options.precision
    ]
    with ThreadPoolExecutor(options.processes) as executor:
        return add_agreement(list(executor.map(lambda task: measure_row(task, options), tasks)))


def measure_row(task: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Return the row of one network, side and precision; a failure is a word in place of the time.

    Args:
        task: Network, side in voxels and precision.
        options: Options of the command line.
    """
    label = " ".join([task.get("engine", "keras"), task["network"], f"{task['side']}^3", task["precision"]])

    def attempt(batch: int, steps: int) -> dict[str, Any] | str:
        try:
            result = measure_in_child({**task, "batch": batch, "steps": steps}, timeout=options.timeout)
        except MeasurementError as error:  # the device may lack a kernel; the other measurements continue
            print(f"{label}, batch {batch}: {error}", file=sys.stderr)
            return "fails"
        return "does not fit" if result is None else result

    def fits(batch: int) -> bool:
        return not isinstance(attempt(batch, 1), str)

    result = attempt(options.batch, STEPS)
    if isinstance(result, str):
        return {**task, "batch": options.batch, "ms_per_step": result}
    print(f"{label}: {result['volumes_per_s']} volumes/s", file=sys.stderr)
    row = {**task, **result}
    # A line after each figure: what was measured is in the log even where the machine is taken away.
    print("csv," + ",".join(str(row.get(column, "")) for column in COLUMNS), flush=True)
    return {**row, "largest_batch": find_largest_batch(fits, options.batch, options.limit)}


def add_agreement(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with the largest relative difference of their logits from those in float32.

    Compared are logits of inference: losses differ in any case, because dropout depends on the precision.

    >>> add_agreement([{"precision": "float32", "logits": [[0.5, -1.0]]}, {"logits": [[0.51, -1.0]]}])[1]
    {'logits': [[0.51, -1.0]], 'differs_from_float32': 0.01}
    """
    exact = next(
        (row["logits"] for row in rows if row.get("precision") == "float32" and "logits" in row), None
    )
    if exact is None:
        return rows
    return [
        {**row, "differs_from_float32": relative_difference(row["logits"], exact)} if "logits" in row else row
        for row in rows
    ]


def relative_difference(logits: list[list[float]], exact: list[list[float]]) -> float:
    """Return the largest difference of two tables of logits, relative to the largest in the second.

    Args:
        logits: Logits [volumes][classes].
        exact: The same in float32.
    """
    pairs = [pair for row, other in zip(logits, exact, strict=True) for pair in zip(row, other, strict=True)]
    return round(max(abs(a - b) for a, b in pairs) / max(abs(b) for _, b in pairs), 5)


def find_largest_batch(fits: Callable[[int], bool], known: int, limit: int) -> int:
    """Return the largest batch that fits, found by doubling and then bisection.

    >>> find_largest_batch(lambda batch: batch <= 37, known=4, limit=256)
    37
    >>> find_largest_batch(lambda batch: True, known=4, limit=24)
    24

    Args:
        fits: Whether a batch fits.
        known: A batch that fits.
        limit: Largest batch to try.
    """
    good, bad = known, None
    while bad is None and good < limit:
        trial = min(2 * good, limit)
        good, bad = (trial, None) if fits(trial) else (good, trial)
    while bad is not None and bad - good > 1:
        trial = (good + bad) // 2
        good, bad = (trial, bad) if fits(trial) else (good, trial)
    return good


def measure_in_child(task: dict[str, Any], *, timeout: float) -> dict[str, Any] | None:
    """Return the result of `measure` in a process of its own; None if it ran out of memory.

    Args:
        task: Network, side in voxels, precision, batch and number of steps, see `measure`.
        timeout: Seconds allowed.

    Raises:
        MeasurementError: If the process failed for another reason, or took longer.
    """
    command = [sys.executable, __file__, "--child", json.dumps(task)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(f"it took longer than {timeout:g} s") from error
    if done.returncode == 0:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    # The operating system kills a process that uses too much main memory.
    if done.returncode == -9 or any(word in done.stderr for word in OUT_OF_MEMORY):
        return None
    raise MeasurementError(done.stderr[-2000:])


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Return time, memory and loss of training steps on random volumes, and the logits before training.

    Args:
        task: Network, side in voxels, precision, batch and number of steps; a single step has no warm-up.

    Returns:
        Milliseconds per step, volumes per second, peak in MB (10^6 bytes), the last loss, and logits
        [volumes][classes].
    """
    import numpy  # noqa: F401, ICN001 - imported, with the framework, before the device is taken

    if task.get("engine") == "torch":
        import torch  # noqa: F401

        with own_device():
            return measure_torch(task)
    import keras  # noqa: F401

    with own_device():
        prepare_device()
        return measure_keras(task)


@contextmanager
def own_device() -> Iterator[None]:
    """Wait until no other measurement of this script uses the device."""
    with Path(__file__).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def measure_keras(task: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of `measure` for a lifted network of Keras.

    Args:
        task: As of `measure`.
    """
    import keras
    import numpy as np

    from voxlift.models.batch_norm import fold_batch_norm

    model = build_compiled(task["network"], task["side"], task["precision"])
    batch, side = task["batch"], task["side"]
    random = np.random.default_rng(0).normal(size=(batch, side, side, side, 1)).astype("float32")
    voxels = keras.ops.convert_to_tensor(random)
    labels = keras.ops.convert_to_tensor(np.arange(batch) % 2)
    is_timed = task["steps"] > 1
    folded = fold_batch_norm(model)
    infer = make_inference(folded, voxels)
    inference = time_calls(infer) if is_timed else 0.0
    logits = infer()[:COMPARED_VOLUMES].tolist() if is_timed else []
    train = make_train_step(model, voxels, labels)
    first, median, loss = time_training(train, task)
    peak = peak_bytes()
    if is_timed and "profile" in task:
        write_jax_profile(train, task)
        write_jax_profile(infer, {**task, "network": f"{task['network']}-infer"})
    return {
        "device": device_name(),
        "backend": keras.backend.backend(),
        **describe_step(task, batch=batch, step=median, inference=inference, first=first, peak=peak),
        "share_of_peak": share_of_peak(device_name(), task["precision"], count_flops(model, task) / median),
        "loss": loss,
        "logits": logits,
    }


def describe_step(
    task: dict[str, Any], *, batch: int, step: float, inference: float, first: float, peak: int
) -> dict[str, Any]:
    """Return the figures that both frameworks have.

    Args:
        task: As of `measure`.
        batch: Volumes of a step.
        step: Seconds of a training step.
        inference: Seconds of a forward pass, 0 where it was not timed.
        first: Seconds of the first step, with what is compiled in it.
        peak: Bytes of memory.
    """
    return {
        "batch": batch,
        "ms_per_step": round(1000 * step, 2),
        "volumes_per_s": round(batch / step, 2),
        "infer_volumes_per_s": round(batch / inference, 2) if inference else "",
        "compile_s": round(first - step, 1) if task["steps"] > 1 else "",
        "peak_mb": round(peak / 1e6),
    }


def time_training(train: Callable[[], float], task: dict[str, Any]) -> tuple[float, float, float]:
    """Return the seconds of the first step (which compiles), the median seconds, and the last loss.

    Args:
        train: Trains one step, waits for its loss and returns it.
        task: As of `measure`.
    """
    import numpy as np

    warm_up = WARM_UP if task["steps"] > 1 else 0
    seconds, loss = [], 0.0
    for _ in range(warm_up + task["steps"]):
        started = time.perf_counter()
        loss = train()
        seconds.append(time.perf_counter() - started)
    return seconds[0], float(np.median(seconds[warm_up:])), loss


def time_calls(call: Callable[[], Any]) -> float:
    """Return the median seconds of a call that waits for its result."""
    import numpy as np

    seconds = []
    for _ in range(WARM_UP + STEPS):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[WARM_UP:]))


def make_inference(model: Any, voxels: Any) -> Callable[[], Any]:  # noqa: ANN401 - untyped
    """Return a function that returns the logits [B, classes] in main memory, one compiled call on JAX.

    Args:
        model: A Keras model.
        voxels: Tensor [B, D, H, W, 1] on the device.
    """
    import keras
    import numpy as np

    if keras.backend.backend() != "jax":
        return lambda: model.predict_on_batch(voxels)
    import jax

    lists = (model.trainable_variables, model.non_trainable_variables)
    values = [[variable.value for variable in variables] for variables in lists]
    compiled = jax.jit(lambda values, x: model.stateless_call(*values, x, training=False)[0])
    return lambda: np.asarray(compiled(values, voxels), np.float32)


def make_train_step(model: Any, voxels: Any, labels: Any) -> Callable[[], float]:  # noqa: ANN401 - untyped
    """Return a function that trains one step and waits for its loss.

    On JAX the whole step is one compiled call, like the one inside `fit`, which hides Python's share behind
    the device's work; `train_on_batch` does not.

    Args:
        model: A compiled Keras model.
        voxels: Tensor [B, D, H, W, 1] on the device.
        labels: Tensor [B].
    """
    import keras

    if keras.backend.backend() != "jax":
        return lambda: float(model.train_on_batch(voxels, labels))
    import jax

    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)

    def compute_loss(weights: Any, others: Any, state: Any) -> Any:  # noqa: ANN401 - lists of arrays
        logits, others = model.stateless_call(weights, others, voxels, training=True)
        loss = model.loss(labels, logits)
        with keras.StatelessScope(state_mapping=list(zip(optimizer.variables, state, strict=True))):
            return optimizer.scale_loss(loss), (loss, others)  # scaled in float16 only

    def update(weights: Any, others: Any, state: Any) -> Any:  # noqa: ANN401 - lists of arrays
        (_, (loss, others)), gradients = jax.value_and_grad(compute_loss, has_aux=True)(
            weights, others, state
        )
        weights, state = optimizer.stateless_apply(state, gradients, weights)
        return loss, (weights, state, others)

    compiled = jax.jit(update, donate_argnums=(0, 1, 2))
    lists = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    values = [[variable.value for variable in variables] for variables in lists]

    def train() -> float:
        nonlocal values
        loss, (weights, state, others) = compiled(*values)
        values = [weights, others, state]
        return float(loss)  # waits for the device

    return train


def write_jax_profile(call: Callable[[], Any], task: dict[str, Any]) -> None:
    """Write the longest kernels of three calls on JAX, with their milliseconds a call.

    Args:
        call: Waits for its result.
        task: As of `measure`, with the folder `profile`.
    """
    import gzip
    import tempfile

    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, create_perfetto_trace=True):
            for _ in range(PROFILED):
                call()
        (trace,) = Path(folder).rglob("perfetto_trace.json.gz")
        events = json.loads(gzip.decompress(trace.read_bytes()))
    write_kernels(sum_kernels(events["traceEvents"] if isinstance(events, dict) else events), task)


def sum_kernels(events: list[dict[str, Any]]) -> dict[str, float]:
    """Return the milliseconds of each kernel that ran on a stream of a device.

    >>> names = [{"name": "process_name", "pid": 1, "args": {"name": "/device:GPU:0"}}]
    >>> names += [{"name": "thread_name", "pid": 1, "tid": 2, "args": {"name": "Stream #2"}}]
    >>> sum_kernels([*names, {"pid": 1, "tid": 2, "name": "gemm", "dur": 500}, {"pid": 3, "dur": 1}])
    {'gemm': 0.5}

    Args:
        events: Of a trace in the Chrome format, durations in microseconds.
    """
    own = [event for event in events if event.get("name") in {"process_name", "thread_name"}]
    named = {(event["name"], event["pid"], event.get("tid")): event["args"]["name"] for event in own}
    devices = {pid for (kind, pid, _), name in named.items() if kind == "process_name" and "/device:" in name}
    kernels: dict[str, float] = {}
    for event in events:
        thread = named.get(("thread_name", event.get("pid"), event.get("tid")), "")
        if "dur" in event and event["pid"] in devices and thread.startswith("Stream"):
            name = f"{event.get('args', {}).get('hlo_op', '')} {event['name']}".strip()
            kernels[name] = kernels.get(name, 0.0) + event["dur"] / 1000
    return kernels


def write_kernels(kernels: dict[str, float], task: dict[str, Any]) -> None:
    """Write a table of kernels, the longest first.

    Args:
        kernels: Milliseconds of `PROFILED` calls by name.
        task: As of `measure`, with the folder `profile`.
    """
    folder = Path(task["profile"])
    folder.mkdir(parents=True, exist_ok=True)
    name = "-".join([task.get("engine", "keras"), task["network"], str(task["side"]), task["precision"]])
    longest = sorted(kernels.items(), key=lambda kernel: -kernel[1])[:LISTED_KERNELS]
    lines = [f"{milliseconds / PROFILED:10.3f} {kernel[:200]}" for kernel, milliseconds in longest]
    total = sum(kernels.values()) / PROFILED
    with (folder / "kernels.txt").open("a", encoding="utf-8") as file:
        file.write("\n".join([f"# {name}: {total:.2f} ms a call on the device", *lines, ""]))


def count_flops(model: Any, task: dict[str, Any]) -> float:  # noqa: ANN401 - untyped Keras
    """Return the floating-point operations of a training step."""
    from voxlift.models.complexity import model_cost

    return TRAINING_FLOPS * task["batch"] * float(model_cost(model, (*[task["side"]] * 3, 1)).flops)


def share_of_peak(device: str, precision: str, rate: float) -> float | str:
    """Return the share of the card's peak, empty for a card that is not listed.

    >>> share_of_peak("NVIDIA H100 80GB HBM3", "mixed_bfloat16", 98.9e12)
    0.1
    """
    peaks = next((peaks for name, peaks in PEAKS.items() if name in device), None)
    return "" if peaks is None else round(rate / peaks[precision != "float32"], 4)


def measure_torch(task: dict[str, Any]) -> dict[str, Any]:
    """Return the same of PyTorch's twin: channels last, autocast, torch.compile, fused AdamW.

    Args:
        task: As of `measure`.
    """
    import torch
    from step_networks import build_torch

    has_gpu = torch.cuda.is_available()
    kind = "cuda" if has_gpu else "cpu"
    device = torch.device(kind)
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")  # TF32, which JAX and TensorFlow use by default
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    dtype = {"mixed_bfloat16": torch.bfloat16, "mixed_float16": torch.float16}.get(task["precision"])
    batch, side = task["batch"], task["side"]
    layout = torch.channels_last_3d
    network = build_torch(torch, task["network"], 2).to(device, memory_format=layout)
    compiled = torch.compile(network)
    voxels = torch.randn(batch, 1, side, side, side, device=device).to(memory_format=layout)
    labels = torch.arange(batch, device=device) % 2
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)
    scaler = torch.amp.GradScaler(kind, enabled=dtype is torch.float16)

    def run_network() -> Any:  # noqa: ANN401 - a tensor
        with torch.autocast(kind, dtype or torch.bfloat16, enabled=dtype is not None):
            return compiled(voxels).float()

    def train() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(run_network(), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return float(loss.item())  # waits for the device

    def infer() -> Any:  # noqa: ANN401 - a tensor
        with torch.inference_mode():
            return run_network()[:COMPARED_VOLUMES].cpu()

    is_timed = task["steps"] > 1
    network.eval()
    inference = time_calls(infer) if is_timed else 0.0
    logits = infer().tolist() if is_timed else []
    network.train()
    first, median, loss = time_training(train, task)
    import resource

    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = torch.cuda.max_memory_allocated() if has_gpu else resident
    if is_timed and "profile" in task:
        write_torch_profile(train, task)
    return {
        "device": torch.cuda.get_device_name() if has_gpu else cpu_name(),
        "backend": "torch compiled",
        **describe_step(task, batch=batch, step=median, inference=inference, first=first, peak=peak),
        "loss": loss,
        "logits": logits,
    }


def write_torch_profile(call: Callable[[], Any], task: dict[str, Any]) -> None:
    """Write the longest kernels of three calls on PyTorch, with their milliseconds a call.

    Args:
        call: Waits for its result.
        task: As of `measure`, with the folder `profile`.
    """
    import torch

    with torch.profiler.profile() as profiler:
        for _ in range(PROFILED):
            call()
    # Operations have the time of their kernels, too: count the kernels alone.
    kernels = [event for event in profiler.key_averages() if event.device_type.name == "CUDA"]
    write_kernels({event.key: event.self_device_time_total / 1000 for event in kernels}, task)


def build_compiled(network: str, side: int, precision: str) -> Any:  # noqa: ANN401 - untyped Keras
    """Return a compiled network.

    Args:
        network: One of `NETWORKS`.
        side: Voxels along each axis.
        precision: One of `PRECISIONS`.
    """
    import keras
    from step_networks import build_keras

    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(precision)
    model = build_keras(network, side, classes=2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-4), loss, jit_compile=keras.backend.backend() == "jax")
    return model


def prepare_device() -> None:
    """Let TensorFlow allocate memory as it is needed, so that the peak is that of the network."""
    if os.environ["KERAS_BACKEND"] == "jax":
        return  # its peak counts the arrays, not the memory reserved at the start
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)  # noqa: FBT003 - the API's own form


def device_name() -> str:
    """Return the first GPU's name, or the number of the CPU's cores."""
    if os.environ["KERAS_BACKEND"] == "jax":
        import jax

        device = jax.local_devices()[0]
        return str(device.device_kind) if device.platform == "gpu" else cpu_name()
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    details = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
    return str(details.get("device_name", "GPU")) if gpus else cpu_name()


def cpu_name() -> str:
    """Return the name of the device in the table if there is no GPU."""
    return f"CPU, {os.cpu_count()} cores"


def peak_bytes() -> int:
    """Return the peak of the memory in use on the GPU, or of this process's resident memory on a CPU."""
    import resource

    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if os.environ["KERAS_BACKEND"] == "jax":
        import jax

        statistics = jax.local_devices()[0].memory_stats() or {}
        return int(statistics.get("peak_bytes_in_use", resident))
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        return int(resident)
    return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows; a column without a value is empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the rows as Markdown."""
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for row in rows:
        print("| " + " | ".join(str(row.get(column, "")) for column in COLUMNS) + " |")


if __name__ == "__main__":
    sys.exit(main())
