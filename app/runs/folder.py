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

from dataclasses import dataclass
from pathlib import Path


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
