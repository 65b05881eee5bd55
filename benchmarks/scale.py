"""Time and memory of each phase of a training on many tiny volumes: is the cost of a volume constant?

    python benchmarks/scale.py                                    1 000, 10 000 and 100 000 volumes
    python benchmarks/scale.py --volumes 1000 4000 --profile      with the slowest functions of each size

The volumes are simulated, 8x8x8 voxels of two classes. Each size is trained for one epoch in a process of its
own, from the table to the finished page. Memory is the peak of resident memory within the phase (Linux).
`growth` is the time of a volume in the largest data set, divided by that in the smallest: 1 is flat, and what
does not depend on the number of volumes falls.
"""

import argparse
import cProfile
import csv
import functools
import json
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 8
COLUMNS = ("volumes", "phase", "seconds", "ms_per_volume", "peak_mb", "grown_kb_per_volume")
TOTAL = "all phases"


def main() -> int:
    """Measure each size, print the table, write the CSV file, and return the exit status."""
    options = parse_arguments()
    if options.child:
        print(json.dumps(measure(options.volumes[0], Path(options.child), options)))
        return 0
    rows: list[dict[str, Any]] = []
    for count in sorted(options.volumes):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            write_volumes(Path(folder) / "data", count)
            rows += measure_in_child(count, Path(folder), options)
        write_csv(options.output, rows)  # after each size, so that an interruption loses nothing
    print_table(rows)
    print(f"Table in {options.output}")
    return 0


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--volumes", nargs="+", type=int, default=[1000, 10_000, 100_000])
    parser.add_argument("--folder", type=Path, help="for the volumes, removed afterwards; default: a new one")
    parser.add_argument("--profile", action="store_true", help="print the slowest functions")
    parser.add_argument("--output", type=Path, default=Path("scale.csv"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def write_volumes(folder: Path, count: int) -> None:
    """Write NIfTI files and their table; the classes differ in their mean.

    Args:
        folder: New folder.
        count: Number of volumes, each of a subject of its own.
    """
    import nibabel as nib

    folder.mkdir(parents=True)
    image = nib.Nifti1Image(np.zeros((SIDE,) * 3, np.uint8), np.eye(4))
    header = image.to_bytes()[: -(SIDE**3)]
    rng = np.random.default_rng(0)
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("subject", "file", "label"))
        for k in range(count):
            name, label = f"{k:06}.nii", k % 2
            voxels = rng.integers(0, 180 + 40 * label, SIDE**3, np.uint8)
            (folder / name).write_bytes(header + voxels.tobytes())
            table.writerow((f"s{k:06}", name, "ab"[label]))


def measure_in_child(count: int, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows of one size, measured in a process of its own.

    Raises:
        SystemExit: The process failed; its output is above.
    """
    command = [sys.executable, __file__, "--child", str(folder), "--volumes", str(count)]
    command += ["--profile"] * options.profile
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    lines = done.stdout.splitlines()
    for line in lines[:-1]:
        print(line, file=sys.stderr)
    if done.returncode:
        sys.exit(f"The training on {count} volumes failed with status {done.returncode}.")
    rows: list[dict[str, Any]] = json.loads(lines[-1])
    return rows


class Clock:
    """Collects seconds and memory of phases; a phase within another counts for itself alone."""

    def __init__(self) -> None:
        self.phases: dict[str, dict[str, float]] = {}
        self.inner: list[float] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the block as a part of a phase."""
        reset_peak()
        before, began = read_memory("VmRSS"), time.perf_counter()
        self.inner.append(0.0)
        try:
            yield
        finally:
            seconds = time.perf_counter() - began
            nested = self.inner.pop()
            if self.inner:
                self.inner[-1] += seconds
            found = self.phases.setdefault(name, {"seconds": 0.0, "peak": 0.0, "grown": 0.0})
            found["seconds"] += seconds - nested
            found["peak"] = max(found["peak"], read_memory("VmHWM"))
            found["grown"] += read_memory("VmRSS") - before

    def watch(self, owner: object, name: str, phase: str) -> None:
        """Measure every call of a function or method."""
        function: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(function)
        def measured(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever it takes and returns
            with self.phase(phase):
                return function(*args, **kwargs)

        setattr(owner, name, measured)


def reset_peak() -> None:
    """Begin the peak of resident memory anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def read_memory(key: str) -> float:
    """Return an entry of this process's memory in bytes, such as `VmRSS`."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def measure(count: int, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train once and return one row per phase.

    Args:
        count: Number of volumes.
        folder: With `data`; gets the cache and the run.
        options: Of the command line.
    """
    clock, profiler = Clock(), cProfile.Profile()
    settings = compose_settings(folder)
    with clock.phase("imports"):
        from voxlift.app.data import cohort
        from voxlift.app.training import fit, train

    clock.watch(train, "find_subjects", "table and splits")
    clock.watch(cohort, "prepare_cohort", "cache")
    clock.watch(cohort.Cohort, "load_metadata", "metadata")
    clock.watch(cohort, "refuse_leaks", "leak check")
    clock.watch(train, "_write_setup", "files of the setup")
    clock.watch(fit, "fit_networks", "one epoch")
    train.phase = clock.phase  # the phases that a training names itself: scoring, metrics, page
    with clock.phase(TOTAL):
        if options.profile:
            profiler.runcall(train.train, settings)
        else:
            train.train(settings)
    if options.profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
    outer = clock.phases.pop(TOTAL)
    clock.phases["rest"] = outer
    rows = [row_of(count, name, found) for name, found in clock.phases.items()]
    seconds = sum(found["seconds"] for found in clock.phases.values())
    peak = max(found["peak"] for found in clock.phases.values())
    return [*rows, row_of(count, TOTAL, {"seconds": seconds, "peak": peak, "grown": outer["grown"]})]


def row_of(count: int, name: str, found: dict[str, float]) -> dict[str, Any]:
    """Return the row of a phase."""
    return {
        "volumes": count,
        "phase": name,
        "seconds": round(found["seconds"], 2),
        "ms_per_volume": round(1000 * found["seconds"] / count, 3),
        "peak_mb": round(found["peak"] / 1e6),
        "grown_kb_per_volume": round(found["grown"] / 1e3 / count, 2),
    }


def compose_settings(folder: Path) -> Any:  # noqa: ANN401 - those of voxlift-train
    """Return the settings of the training."""
    from hydra import compose, initialize_config_module

    from voxlift.app.cli.train import read_settings
    from voxlift.app.config import register_schemas

    register_schemas()
    given = [
        "data=manifest", f"data.table={folder}/data/labels.csv", "data.subject_column=subject",
        "data.image_column=file", "preprocess=none", "preprocess.spacing=native",
        f"preprocess.shape=[{SIDE},{SIDE},{SIDE}]", "model.filters=[4,6,8]", "augment=none", "logger=none",
        "trainer.epochs=1", "trainer.batch_size=64", "precision=float32", "preflight.enabled=false",
        f"cache.folder={folder}/cache", f"run_dir={folder}/run",
    ]  # fmt: skip
    with initialize_config_module("voxlift.conf", version_base="1.3"):
        return read_settings(compose("train", overrides=given))


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the rows."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print ms and peak memory of each phase for each size, and what a volume costs more in the largest."""
    sizes = sorted({row["volumes"] for row in rows})
    found = {(row["phase"], row["volumes"]): row for row in rows}
    phases = list(dict.fromkeys(row["phase"] for row in rows))
    heads = [f"{size:,} ms/volume | MB" for size in sizes]
    print("| phase | " + " | ".join(heads) + " | growth |\n|---|" + "---|" * (2 * len(sizes) + 1))
    for phase in phases:
        cells = [found.get((phase, size)) for size in sizes]
        shown = [f"{cell['ms_per_volume']} | {cell['peak_mb']}" if cell else " | " for cell in cells]
        first, last = cells[0], cells[-1]
        growth = (
            f"{last['ms_per_volume'] / first['ms_per_volume']:.2f}"
            if first and last and first["ms_per_volume"]
            else ""
        )
        print(f"| {phase} | {' | '.join(shown)} | {growth} |")


if __name__ == "__main__":
    sys.exit(main())
