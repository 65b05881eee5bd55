"""Time of a training step and of inference: ours, PyTorch's best, and the convolutions alone, in one run.

    python benchmarks/train_step.py                  # every network and precision
    python benchmarks/train_step.py --quick          # fewer turns, under five minutes on two cores
    python benchmarks/train_step.py --network demo --precision bfloat16 --mode training

Each framework runs in a process of its own, so that neither's threads disturb the other; the processes take
turns, one works while the others wait, and the best step of each contestant counts. The *floor* is the same
convolutions, forward and both gradients, with nothing between them. PyTorch runs in both memory formats, with
its fused AdamW; its best counts. On a virtual machine run it under a tool that keeps the CPUs awake.
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
FLOOR = "convolution floor"
OURS = "voxlift"


@dataclass
class Worker:
    """A process that holds the contestants of one framework for one network and precision."""

    process: subprocess.Popen[str]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Its contestants."""
        return list(self.facts["contestants"])

    def receive(self) -> dict[str, Any]:
        """The next answer.

        Raises:
            SystemExit: the process ended instead; its own message stands above.
        """
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            sys.exit(f"A worker ended early: {' '.join(map(str, self.process.args))}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def take_turn(self, name: str, mode: str, *, steps: int, seconds: float) -> list[float]:
        """Seconds of each step of one contestant.

        Args:
            name: Of the contestant.
            mode: `training` or `inference`.
            steps: How many are timed at most.
            seconds: After which no further one begins.
        """
        order = {"contestant": name, "mode": mode, "steps": steps, "seconds": seconds}
        if self.process.stdin:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
        return list(self.receive()["times"])


def main() -> int:
    """Print a table per case and a summary; return the exit status."""
    options = parse_arguments()
    summary = []
    for network in options.network:
        for precision in options.precision:
            summary += run_pair(network, precision, options)
    print_summary(summary)
    return 0


def parse_arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--mode", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, help="turns that each contestant takes (4, or 2 with --quick)")
    parser.add_argument("--steps", type=int, default=10, help="most timed steps per turn")
    parser.add_argument("--seconds", type=float, default=2.0, help="a turn ends after so long")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--without-torch", action="store_true", help="only ours and the floor")
    parser.add_argument("--quick", action="store_true", help="short turns, two rounds")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 4)
    options.seconds = min(options.seconds, 1.0) if options.quick else options.seconds
    return options


def run_pair(network: str, precision: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time one network in one precision; a row of the summary per mode.

    Args:
        network: A name of `NETWORKS`.
        precision: `float32` or `bfloat16`.
        options: The command line's.
    """
    with ExitStack() as stack:
        frameworks = ["tensorflow"] if options.without_torch else ["tensorflow", "torch"]
        workers = [
            stack.enter_context(start_worker(name, network, precision, options)) for name in frameworks
        ]
        for worker in workers:  # they prepare side by side
            worker.facts = worker.receive()
        refuse_unlike(workers)
        return [run_case(network, precision, mode, workers, options) for mode in options.mode]


@contextmanager
def start_worker(
    framework: str, network: str, precision: str, options: argparse.Namespace
) -> Iterator[Worker]:
    """A running worker; it is ended at the end of the block.

    Args:
        framework: `tensorflow` or `torch`.
        network: A name of `NETWORKS`.
        precision: `float32` or `bfloat16`.
        options: The command line's.
    """
    command = [sys.executable, str(Path(__file__).with_name("step_worker.py")), framework, network, precision]
    command += [str(NETWORKS[network]), str(options.batch), str(options.threads)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Worker(process)
        if process.stdin:
            process.stdin.close()


def refuse_unlike(workers: list[Worker]) -> None:
    """Pass when all workers hold networks of the same size.

    Raises:
        SystemExit: the numbers of trainable parameters differ, so times would not compare.
    """
    sizes = {worker.facts["framework"]: worker.facts["parameters"] for worker in workers}
    if len(set(sizes.values())) > 1:
        sys.exit(f"The networks are no twins: trainable parameters {sizes}")


def run_case(
    network: str, precision: str, mode: str, workers: list[Worker], options: argparse.Namespace
) -> dict[str, Any]:
    """Let all contestants take turns, print their table, and return the summary's row.

    Args:
        network: A name of `NETWORKS`.
        precision: `float32` or `bfloat16`.
        mode: `training` or `inference`.
        workers: One per framework, ready.
        options: The command line's.
    """
    times: dict[str, list[float]] = {name: [] for worker in workers for name in worker.names}
    for _ in range(options.rounds):
        for worker in workers:
            for name in worker.names:
                times[name] += worker.take_turn(name, mode, steps=options.steps, seconds=options.seconds)
    best = {name: min(values) for name, values in times.items()}
    size = NETWORKS[network]
    print(
        f"\n{network} {size}^3, batch {options.batch}, {precision}, {mode}, "
        f"{workers[0].facts['parameters']:,} parameters"
    )
    for name, seconds in sorted(best.items(), key=lambda item: item[1]):
        print(
            f"  {name:28} best {seconds * 1e3:8.1f} ms  median {statistics.median(times[name]) * 1e3:8.1f} ms"
            f" {options.batch / seconds:8.1f} volumes/s {best[FLOOR] / seconds:5.0%} of the floor's rate"
        )
    peers = [seconds for name, seconds in best.items() if name.startswith("torch")]
    return {
        "case": f"{network} {size}^3 {precision} {mode}",
        "ours": options.batch / best[OURS],
        "peer": options.batch / min(peers) if peers else None,
        "share": best[FLOOR] / best[OURS],
    }


def print_summary(rows: list[dict[str, Any]]) -> None:
    """One line per case: both rates, their ratio, and the share of the floor's rate."""
    print(f"\n{'case':42} {'voxlift':>9} {'torch':>9} {'ratio':>6} {'of the floor':>13}   (volumes/s)")
    for row in rows:
        peer = f"{row['peer']:9.1f} {row['ours'] / row['peer']:6.2f}" if row["peer"] else f"{'':16}"
        print(f"{row['case']:42} {row['ours']:9.1f} {peer} {row['share']:13.0%}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
