"""Checks of a training before anything is read: its settings, and what they name on this machine."""

from __future__ import annotations

from voxlift.app.config import TrainSettings, check_settings
from voxlift.app.runtime.devices import check_backend
from voxlift.app.training.pretrained import check_baseline
from voxlift.app.training.strategy.hosts.supervise import check_engine


def check_training(settings: TrainSettings) -> None:
    """Pass when the settings fit together, and the baseline and the backend that they name exist.

    Raises:
        SettingsError: Listing all problems of a kind.
    """
    check_settings(settings)
    check_baseline(settings.model)
    check_engine() if settings.strategy == "hosts" else check_backend()
