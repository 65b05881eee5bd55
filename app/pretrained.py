"""Trained 2D networks on disk: a `.keras` file, or the folder of a finished slice run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from app.runs import RunFolder, load_settings
from app.settings import SettingsError

log = logging.getLogger("voxlift")


def trained_source(baseline: str) -> Path | None:
    """The file or run folder that `model.baseline` names; None where it names an untrained network."""
    path = Path(baseline).expanduser()
    return path if path.suffix == ".keras" or path.is_dir() else None


def check_slice_run(folder: Path, *, key: str) -> list[str]:
    """What keeps a folder from being a finished slice run, as sentences; nothing is loaded.

    Args:
        folder: an existing folder.
        key: the setting that names it, for the message.
    """
    run = RunFolder(folder)
    missing = [path.name for path in (run.config, run.model, run.metrics) if not path.is_file()]
    if missing:
        return [f"{key}={folder}: expected a finished slice run; {', '.join(missing)} is not in it."]
    kind = load_settings(run).model.kind
    if kind != "slice":
        expected = f"{key}={folder}: expected a slice run, whose 2D network is lifted"
        return [f"{expected}; this is a {kind} run, its network is 3D already."]
    return []


def load_trained(source: Path) -> Any:  # noqa: ANN401 - Keras ships no types
    """The 2D network of a `.keras` file or a slice run, with its weights.

    Raises:
        SettingsError: the file cannot be loaded, or takes no images [B, H, W, C].
    """
    from app.runtime import load_network
    from models.aggregation import unwrap_slices

    file = RunFolder(source).model if source.is_dir() else source
    network = unwrap_slices(load_network(file))
    shape = network.input_shape
    if isinstance(shape, tuple) and len(shape) != 4:
        raise SettingsError(f"{file}: expected a network for images [B, H, W, C]; it takes {shape}.")
    return network
