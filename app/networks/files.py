"""Networks as `.keras` files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.networks.protection import protect_scoring
from app.process.runtime import import_quietly
from app.settings import SettingsError


def load_network(path: Path) -> Any:  # noqa: ANN401 - Keras ships no types
    """A saved network, with our own layers known to Keras, able to score on this device.

    Raises:
        SettingsError: the file is not a Keras model, or is damaged.
    """
    import_quietly()
    import keras

    import models.aggregation
    import models.layers  # noqa: F401 - importing a layer registers it

    try:
        network = keras.saving.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        first = str(error).strip().split("\n", maxsplit=1)[0]
        raise SettingsError(f"{path}: expected a Keras model that can be loaded; {first}") from error
    protect_scoring(network)
    return network
