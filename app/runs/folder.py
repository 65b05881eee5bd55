"""The run folder: its layout, written and read here and nowhere else.

config.yaml       the resolved configuration
environment.json  versions, device, precision
preflight.json    shapes, memory and rates, looked at before the first epoch
splits.csv        subject, image, label, split
left_out.csv      bad files that were skipped
training_range.json  spacing, size, orientation and intensities of the training volumes
history.csv       one row per epoch
checkpoints/      the newest states of the training, from which `resume=` goes on
model.keras       the best weights; takes volumes, gives logits
predictions.csv   one row per volume, a probability per class
metrics.json      per split; written last, so that its presence means the run is finished
report.html, log.txt, tensorboard/
"""

from __future__ import annotations

import difflib
import time
from dataclasses import dataclass
from pathlib import Path

from voxlift.app.config import SettingsError
from voxlift.app.files import refuse_unwritable


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration (YAML)."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions, device and precision (JSON)."""
        return self.path / "environment.json"

    @property
    def preflight(self) -> Path:
        """What was found before the first epoch (JSON)."""
        return self.path / "preflight.json"

    @property
    def splits(self) -> Path:
        """Which subject is in which split (CSV)."""
        return self.path / "splits.csv"

    @property
    def left_out(self) -> Path:
        """The bad files that `data.on_bad_file=skip` left out (CSV)."""
        return self.path / "left_out.csv"

    @property
    def training_range(self) -> Path:
        """What the training volumes were like (JSON), so that prediction can tell what they were not."""
        return self.path / "training_range.json"

    @property
    def model(self) -> Path:
        """The model with the best weights: volumes in, float32 logits out."""
        return self.path / "model.keras"

    @property
    def history(self) -> Path:
        """One row per epoch (CSV)."""
        return self.path / "history.csv"

    @property
    def predictions(self) -> Path:
        """One row per volume with a probability per class (CSV)."""
        return self.path / "predictions.csv"

    @property
    def metrics(self) -> Path:
        """Metrics per split (JSON); the run is finished when it exists."""
        return self.path / "metrics.json"

    @property
    def report(self) -> Path:
        """The page for a person."""
        return self.path / "report.html"

    @property
    def log(self) -> Path:
        """What the command said (text)."""
        return self.path / "log.txt"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's events."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """The states that a resumed training goes on from."""
        return self.path / "checkpoints"

    @property
    def is_finished(self) -> bool:
        """Whether the run reached its end."""
        return self.metrics.exists()


def refuse_used_folder(run_dir: str | None) -> None:
    """Pass when `run_dir` may receive a run: it is None, new, or an empty folder.

    Raises:
        SettingsError: it holds another run's files or anything else, or cannot be made.
    """
    if run_dir is None:
        return
    path = Path(run_dir).expanduser()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise SettingsError(f"run_dir={run_dir}: expected a new or empty folder, but {hint_at_folder(path)}")
    refuse_unwritable(path / "config.yaml", asked=f"run_dir={run_dir}")


def create_run(run_dir: str | None, *, runs_folder: str, name: str) -> RunFolder:
    """A new run folder, made on disk.

    Args:
        run_dir: the folder that the user asks for; None makes `<runs_folder>/<time>-<name>`.
        runs_folder: where unnamed runs go.
        name: what the run is, for an unnamed folder.

    Raises:
        SettingsError: the folder holds another run's files, or anything else.
    """
    if run_dir is None:
        return _create_unnamed(Path(runs_folder), f"{time.strftime('%Y%m%d-%H%M%S')}-{name}")
    refuse_used_folder(run_dir)
    folder = RunFolder(Path(run_dir).expanduser())
    folder.path.mkdir(parents=True, exist_ok=True)
    return folder


def _create_unnamed(parent: Path, stem: str) -> RunFolder:
    parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1000):  # two runs may start within one second
        path = parent / (stem if attempt == 0 else f"{stem}-{attempt + 1}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return RunFolder(path)
    raise SettingsError(f"{parent}: a thousand runs of this second exist; choose a run_dir.")


def open_run(run: str) -> RunFolder:
    """A finished run's folder.

    Raises:
        SettingsError: it is not a folder, not a run, or not finished.
    """
    folder = RunFolder(Path(run).expanduser())
    if not folder.path.is_dir():
        is_file = " it is a file." if folder.path.exists() else " there is no such folder."
        raise SettingsError(f"run={run}: expected a run folder;{is_file} {hint_at_runs(folder.path)}")
    missing = [path.name for path in (folder.config, folder.splits, folder.model) if not path.exists()]
    if missing and (folder.path / "coefficients.csv").exists():
        raise SettingsError(
            f"run={run}: expected the run of a network; this one is a regression on columns of the table, "
            "whose results stand in metrics.json, predictions.csv and coefficients.csv."
        )
    if missing:
        raise SettingsError(
            f"run={run}: expected a finished run's folder; {', '.join(missing)} is not in it. "
            f"{hint_at_runs(folder.path)}"
        )
    return folder


PLACES = {  # of runs below a folder, and what that folder is
    "runs/*": "It is a comparison's folder, which holds the runs",
    "*": "It holds the runs",
    "*/runs/*": "Below it are the runs",
}
SHOWN = 6


def hint_at_runs(path: Path) -> str:
    """The runs below a folder, the name that a mistyped one is near to, or what makes runs.

    Args:
        path: what was taken for a run.
    """
    for place, words in PLACES.items():
        marks = [mark for name in ("config.yaml", "metrics.json") for mark in path.glob(f"{place}/{name}")]
        inside = sorted({str(mark.parent) for mark in marks})
        if inside:
            rest = f" and {len(inside) - SHOWN} more" * (len(inside) > SHOWN)
            return f"{words} {', '.join(inside[:SHOWN])}{rest}: name one of them."
    if not path.exists():
        return _nearest(path) or "voxlift-train makes one and names it in its last line."
    if (path / "config.yaml").exists():
        return f"The training was broken off; to go on: voxlift-train resume={path}"
    return "voxlift-train makes one and names it in its last line."


def hint_at_folder(path: Path) -> str:
    """What a folder holds where a new run was to go, and what can be done instead."""
    if not path.is_dir():
        return "it is a file; choose another run_dir."
    if (path / "metrics.json").exists():
        return "it holds results, those of a finished run; choose another run_dir."
    if (path / "config.yaml").exists():
        return (
            "it holds results, those of a training that was broken off; "
            f"resume={path} goes on with it, or choose another run_dir."
        )
    names = sorted(entry.name for entry in path.iterdir())
    rest = " and more" * (len(names) > 3)
    return f"it holds {', '.join(names[:3])}{rest}; choose another run_dir."


def _nearest(path: Path) -> str:
    """` Did you mean ...?` with the first part that does not exist put right, where one is near."""
    parts = path.parts
    for depth in range(1, len(parts) + 1):
        part, above = Path(*parts[:depth]), Path(*parts[: depth - 1])
        if part.exists():
            continue
        known = [entry.name for entry in above.iterdir()] if above.is_dir() else []
        close = difflib.get_close_matches(part.name, known, n=1, cutoff=0.6)
        mended = above.joinpath(*close, *parts[depth:])
        return f"Did you mean {mended}?" if close and mended.exists() else ""
    return ""
