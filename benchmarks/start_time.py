"""Seconds of `voxlift-train` from the command to the end of its first training step, by phase.

    .venv/bin/python benchmarks/start_time.py [--repeats 3] [--source FOLDER ...] [OVERRIDE ...]

CPU seconds and seconds that passed, of the best repeat by CPU seconds. With two folders of
sources (`src` of a checkout each) they take turns, so that a loaded machine slows both; the first one is the
baseline. Data and cache are filled before. Overrides are those of `voxlift-train`; without any, the phantom.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PHASES = ("imports of the command", "settings", "imports of training", "subjects", "TensorFlow and Keras")
PHASES += ("networks", "images", "preflight", "run folder", "first step")
Marks = list[tuple[str, float, float]]


def run_once(overrides: list[str], source: str, folder: Path) -> dict[str, list[float]]:
    """Return CPU seconds and seconds of each phase of one training, which ends after its first step."""
    output = folder / "marks.json"
    worker = [sys.executable, "-P", __file__, "--worker", str(output), *overrides]
    environment = os.environ | {"PYTHONPATH": source} if source else None
    done = subprocess.run(worker, capture_output=True, text=True, check=False, env=environment)
    if not output.exists():
        raise SystemExit(
            f"The training ended before its first step.\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    marks = json.loads(output.read_text())
    output.unlink()
    return {str(name): [float(cpu), float(wall)] for name, cpu, wall in marks}


def work(output: Path, overrides: list[str]) -> None:
    """Train until the first step is done, and write what each phase took."""
    marks: Marks = []
    last = [0.0, time.perf_counter()]  # CPU seconds of the interpreter's own start belong to the first phase

    def mark(name: str) -> None:
        now = [time.process_time(), time.perf_counter()]
        marks.append((name, now[0] - last[0], now[1] - last[1]))
        last[:] = now

    def marking(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the function
            result = function(*args, **kwargs)
            mark(name)
            return result

        return call

    import voxlift.app.cli.train as command
    from voxlift.app.cli.command import run_command

    mark(PHASES[0])

    def start(settings: Any) -> int:  # noqa: ANN401 - TrainSettings
        mark(PHASES[1])
        from voxlift.app.training import train as training

        mark(PHASES[2])
        names = ("check_reported_columns", "_prepare_process", "build_stages_early", "_complete_session")
        for name, phase in zip((*names, "_run_preflight", "_write_setup"), PHASES[3:9], strict=True):
            setattr(training, name, marking(phase, getattr(training, name)))
        return _train(training, settings, mark, lambda: output.write_text(json.dumps(marks)))

    sys.argv = ["voxlift-train", *overrides]
    run_command("train", read=command.read_settings, job=start)


def _train(training: Any, settings: Any, mark: Callable[[str], None], write: Callable[[], Any]) -> int:  # noqa: ANN401
    fit = training._fit  # noqa: SLF001 - where the first step is taken

    def fit_one_step(*args: Any) -> Any:  # noqa: ANN401 - as `_fit`
        import keras

        def end(*_: Any, **__: Any) -> None:  # noqa: ANN401 - as the method
            mark(PHASES[9])
            write()
            os._exit(0)  # nothing of the training is kept

        keras.callbacks.CallbackList.on_train_batch_end = end
        return fit(*args)

    training._fit = fit_one_step  # noqa: SLF001 - as above
    return int(training.train(settings))


def print_table(found: dict[str, list[dict[str, list[float]]]]) -> None:
    """Print the phases of each source: CPU seconds, and seconds that passed."""
    best = {
        name: min(runs, key=lambda run: sum(one[0] for one in run.values())) for name, runs in found.items()
    }
    print(f"{'':24}" + "".join(f"{name[-22:]:>24}" for name in best))
    print(f"{'':24}" + f"{'CPU s':>14}{'passed s':>10}" * len(best))
    for phase in PHASES:
        cells = [best[name].get(phase, [0.0, 0.0]) for name in best]
        print(f"{phase:24}" + "".join(f"{cpu:14.2f}{wall:10.2f}" for cpu, wall in cells))
    totals = [[sum(one[k] for one in run.values()) for k in (0, 1)] for run in best.values()]
    print(f"{'to the first step':24}" + "".join(f"{cpu:14.2f}{wall:10.2f}" for cpu, wall in totals))


def main() -> None:
    """Measure, or be the process that is measured."""
    if sys.argv[1:2] == ["--worker"]:
        work(Path(sys.argv[2]), sys.argv[3:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--source", nargs="*", default=[""], help="folders that hold the package voxlift")
    options, overrides = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = ["data=phantom", "data.subjects=24", "model=volume3d", "logger=none", *overrides]
        given += [f"data.folder={folder}/data", f"cache.folder={folder}/cache", f"runs_folder={folder}/runs"]
        run_once(given, options.source[0], folder)  # fills data and cache
        found: dict[str, list[dict[str, list[float]]]] = {source: [] for source in options.source}
        for _ in range(options.repeats):
            for source, runs in found.items():
                runs.append(run_once(given, source, folder))
    print(f"load average {os.getloadavg()[0]:.0f} on {os.cpu_count()} CPUs")
    print_table({name or "installed": runs for name, runs in found.items()})


if __name__ == "__main__":
    main()
