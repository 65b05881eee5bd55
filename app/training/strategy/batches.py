"""Batches that several devices share evenly: only then is the mean of their means that of the batch."""

from __future__ import annotations

from voxlift.app.config import SettingsError


def refuse_uneven_batches(batch_size: int, devices: int) -> None:
    """Pass when every device gets the same number of samples.

    Raises:
        SettingsError: With the nearest batch sizes.
    """
    rest = batch_size % devices
    if rest:
        lower = batch_size - rest
        nearest = f"{lower} or {lower + devices}" if lower else str(devices)
        raise SettingsError(
            f"trainer.batch_size={batch_size}: expected a multiple of {devices} devices; choose {nearest}."
        )


def even_share(batch_size: int, devices: int) -> int:
    """Return the largest batch up to `batch_size` that gives every device the same number of samples.

    Raises:
        SettingsError: There are fewer samples than devices.

    >>> even_share(13, 4)
    12
    """
    if batch_size < devices:
        raise SettingsError(f"strategy: expected a sample for each of {devices} devices, found {batch_size}.")
    return batch_size - batch_size % devices
