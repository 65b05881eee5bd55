"""Networks told apart before they are trained: by their structure and the weights that they begin with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from voxlift.app.networks.building import build_networks
from voxlift.app.process.runtime import prepare_runtime
from voxlift.app.settings import ModelSettings, TrainSettings
from voxlift.app.subjects.cohort import Cohort


def print_model(settings: TrainSettings, cohort: Cohort, model: Mapping[str, Any]) -> dict[str, str]:
    """A digest of the network that a model's settings give under the training's seed.

    Args:
        settings: Of a training: precision and seed.
        cohort: Whose volumes the network takes.
        model: The fields of `ModelSettings`.

    Returns:
        `print`, and `problem`: why it cannot be built; one of them is empty.
    """
    import keras

    keras.utils.clear_session()  # names count from the start again
    prepare_runtime(precision=settings.precision, deterministic=settings.deterministic, seed=settings.seed)
    try:
        network = build_networks(ModelSettings(**model), cohort).volume
    except (
        ValueError
    ) as error:  # ours (SettingsError, LiftError) and those of Keras, about a shape for instance
        return {"print": "", "problem": str(error)}
    return {"print": print_network(network), "problem": ""}


def print_network(network: Any) -> str:  # noqa: ANN401 - untyped Keras
    """A digest of a network's layers, how they are joined, and every weight."""
    digest = hashlib.sha256(json.dumps(network.get_config(), sort_keys=True, default=str).encode())
    for weight in network.get_weights():
        digest.update(str(weight.shape).encode())
        digest.update(weight.tobytes())
    return digest.hexdigest()
