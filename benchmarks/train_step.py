"""Time of a training step and of inference: Voxlift, PyTorch, and the convolutions alone, in one run.

    python benchmarks/train_step.py                  # every network and precision
    python benchmarks/train_step.py --quick          # fewer rounds, under five minutes on two cores
    python benchmarks/train_step.py --network demo --precision bfloat16 --mode training

Each framework runs in a process of its own, so that their threads do not disturb each other; the processes
take turns, and the best step of each implementation counts. The *bound* is the same convolutions, forward and
both gradients, with nothing between them. PyTorch runs in both memory formats with its fused AdamW, of which
the faster counts, and compiled: torch.compile, channels last, weights frozen for inference. OpenVINO runs the
network of PyTorch, for inference, and as `engine=openvino` ours. What they compile before the first step is
stated apart. On a virtual machine run it under a tool that keeps the CPUs awake.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NETWORKS = {"demo": 32, "cnn": 32, "resnet18": 48, "densenet121": 48}  # voxels per side
PRECISIONS = ("float32", "bfloat16")
MODES = ("training", "inference")
BOUND = "convolutions alone"
OURS = "voxlift"
COMPILED = "torch compiled"
OPENVINO = "openvino"
CONVERTED = "voxlift openvino"


@dataclass
class Worker:
    """A process with the implementations of one framework for one network and precision."""

    process: subprocess.Popen[str]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The names of its implementations."""
        return list(self.facts["implementations"])

    def receive(self) -> dict[str, Any]:
        """Return the next reply.

        Raises:
            SystemExit: If the process ended instead; its own message is above.
        """
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            sys.exit(f"A worker ended early: {' '.join(map(str, self.process.args))}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def time_steps(self, name: str, mode: str, *, steps: int, seconds: float) -> tuple[list[float], float]:
        """Return the seconds of each step of one implementation, and those before the first one.

        Args:
            name: Of the implementation.
            mode: `training` or `inference`.
            steps: Maximum number of steps.
            seconds: No step begins after so many seconds.
        """
        request = {"implementation": name, "mode": mode, "steps": steps, "seconds": seconds}
        if self.process.stdin:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        reply = self.receive()
        return list(reply["times"]), float(reply["compiling"])


def main() -> int:
    """Print a table per case and a summary, and return the exit status."""
    options = parse_arguments()
    summary = []
    for network in options.network:
        for precision in options.precision:
            summary += run_pair(network, precision, options)
    print_summary(summary)
    return 0


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--mode", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, help="rounds of measurements (4, or 2 with --quick)")
    parser.add_argument("--steps", type=int, default=10, help="maximum of timed steps per round")
    parser.add_argument("--seconds", type=float, default=2.0, help="maximum of seconds per round")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--without-torch", action="store_true", help="without PyTorch")
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter that has PyTorch")
    parser.add_argument("--side", type=int, help="voxels along each axis, for a trial; default: by network")
    parser.add_argument("--quick", action="store_true", help="short measurements, two rounds")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 4)
    options.seconds = min(options.seconds, 1.0) if options.quick else options.seconds
    return options


def run_pair(network: str, precision: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time one network in one precision, and return a row of the summary per mode.

    Args:
        network: A name of `NETWORKS`.
        precision: `float32` or `bfloat16`.
        options: Options of the command line.
    """
    with ExitStack() as stack:
        frameworks = ["tensorflow"] if options.without_torch else ["tensorflow", "torch"]
        workers = [
            stack.enter_context(start_worker(name, network, precision, options)) for name in frameworks
        ]
        for worker in workers:  # they start in parallel
            worker.facts = worker.receive()
        check_sizes(workers)
        return [run_case(network, precision, mode, workers, options) for mode in options.mode]


@contextmanager
def start_worker(
    framework: str, network: str, precision: str, options: argparse.Namespace
) -> Iterator[Worker]:
    """Start a worker, which ends with the `with` block.

    Args:
        framework: `tensorflow` or `torch`.
        network: A name of `NETWORKS`.
        precision: `float32` or `bfloat16`.
        options: Options of the command line.
    """
    python = options.torch_python if framework == "torch" else sys.executable
    command = [python, str(Path(__file__).with_name("step_worker.py")), framework, network, precision]
    command += [str(options.side or NETWORKS[network]), str(options.batch), str(options.threads)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Worker(process)
        if process.stdin:
            process.stdin.close()


def check_sizes(workers: list[Worker]) -> None:
    """Stop if the workers' networks differ in size: their times would not be comparable.

    Raises:
        SystemExit: If the numbers of trainable parameters differ.
    """
    sizes = {worker.facts["framework"]: worker.facts["parameters"] for worker in workers}
    if len(set(sizes.values())) > 1:
        sys.exit(f"Expected networks of the same number of trainable parameters, received {sizes}.")


def run_case(
    network: str, precision: str, mode: str, workers: list[Worker], options: argparse.Namespace
) -> dict[str, Any]:
    """Time all implementations in turns, print their table, and return the row of the summary.

    Args:
        network: A name of `NETWORKS`.
        precision: `float32` or `bfloat16`.
        mode: `training` or `inference`.
        workers: One per framework, ready.
        options: Options of the command line.
    """
    times: dict[str, list[float]] = {}
    compiling: dict[str, float] = {}
    for _ in range(options.rounds):
        for worker in workers:
            for name in worker.names:
                if name in {OPENVINO, CONVERTED} and mode == "training":
                    continue
                found = worker.time_steps(name, mode, steps=options.steps, seconds=options.seconds)
                times.setdefault(name, []).extend(found[0])
                compiling[name] = found[1]
    best = {name: min(values) for name, values in times.items()}
    size = options.side or NETWORKS[network]
    print(
        f"\n{network} {size}^3, batch {options.batch}, {precision}, {mode}, "
        f"{workers[0].facts['parameters']:,} parameters"
    )
    for name, seconds in sorted(best.items(), key=lambda item: item[1]):
        print(
            f"  {name:28} best {seconds * 1e3:8.1f} ms  median {statistics.median(times[name]) * 1e3:8.1f} ms"
            f" {options.batch / seconds:8.1f} volumes/s {best[BOUND] / seconds:5.0%} of the bound,"
            f" {compiling[name]:.1f} s before the first"
        )
    torch_times = [
        seconds for name, seconds in best.items() if name.startswith("torch ") and name != COMPILED
    ]
    return {
        "case": f"{network} {size}^3 {precision} {mode}",
        "ours": options.batch / best[OURS],
        "torch": options.batch / min(torch_times) if torch_times else None,
        **{name: options.batch / best[name] for name in (CONVERTED, COMPILED, OPENVINO) if name in best},
        "share": best[BOUND] / best[OURS],
    }


def print_summary(rows: list[dict[str, Any]]) -> None:
    """Print one line per case: all rates, our best by the best other, and the share of the bound."""
    others = ("torch", COMPILED, OPENVINO)
    heads = " ".join(f"{name:>16}" for name in (OURS, CONVERTED, *others))
    print(f"\n{'case':42} {heads} {'ratio':>6} {'of the bound':>13}   (volumes/s)")
    for row in rows:
        ours = [row["ours"], row.get(CONVERTED)]
        rates = [row.get(name) for name in others]
        shown = " ".join(f"{rate:16.1f}" if rate else f"{'':16}" for rate in (*ours, *rates))
        known = [rate for rate in rates if rate]
        ratio = f"{max(filter(None, ours)) / max(known):6.2f}" if known else f"{'':6}"
        print(f"{row['case']:42} {shown} {ratio} {row['share']:13.0%}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
