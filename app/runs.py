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

import time
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from app.files import write_text
from app.settings import SettingsError, TrainSettings


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
        SettingsError: it holds another run's files, or anything else.
    """
    path = Path(run_dir).expanduser() if run_dir is not None else None
    if path is not None and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise SettingsError(
            f"run_dir={run_dir}: expected a new or empty folder, but it holds results; "
            "choose another run_dir or remove it yourself."
        )


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


def save_settings(settings: TrainSettings, run: RunFolder) -> None:
    """Write the resolved configuration."""
    write_text(run.config, OmegaConf.to_yaml(OmegaConf.structured(settings)))


def load_settings(run: RunFolder) -> TrainSettings:
    """The configuration that a run was made with.

    Raises:
        SettingsError: the file cannot be read, or holds keys that this version does not know.
    """
    try:
        saved = OmegaConf.merge(OmegaConf.structured(TrainSettings), OmegaConf.load(run.config))
        settings = OmegaConf.to_object(saved)
    except (OmegaConfBaseException, OSError, ValueError) as error:
        raise SettingsError(
            f"{run.config}: expected a configuration that voxlift-train wrote; {error}"
        ) from error
    if not isinstance(settings, TrainSettings):
        raise SettingsError(f"{run.config}: expected a configuration that voxlift-train wrote.")
    return settings


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
        raise SettingsError(f"run={run}: expected a run folder; there is no such folder.")
    missing = [path.name for path in (folder.config, folder.splits, folder.model) if not path.exists()]
    if missing and (folder.path / "coefficients.csv").exists():
        raise SettingsError(
            f"run={run}: expected the run of a network; this one is a regression on columns of the table, "
            "whose results stand in metrics.json, predictions.csv and coefficients.csv."
        )
    if missing:
        raise SettingsError(
            f"run={run}: expected a finished run's folder; {', '.join(missing)} is not in it. "
            f"{_runs_inside(folder.path)}"
        )
    return folder


def _runs_inside(folder: Path) -> str:
    """Where the runs are: a comparison keeps those of its trainings in its folder."""
    inside = sorted(str(path.parent) for path in folder.glob("runs/*/metrics.json"))
    if inside:
        return f"It is a comparison's folder, which holds the runs {', '.join(inside[:6])}: name one of them."
    return "voxlift-train writes one and names it in its last line."
