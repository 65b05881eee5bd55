"""Networks as `.keras` files: loaded for this device, and written atomically."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from voxlift.app.config import SettingsError
from voxlift.app.runtime.precision import protect_scoring
from voxlift.app.runtime.setup import import_quietly
from voxlift.data_pipelines.files import atomic_write, remove_leftovers


def load_network(path: Path) -> Any:  # noqa: ANN401 - Keras ships no types
    """Return a saved network that can score volumes on this device; it may contain layers of Voxlift.

    Args:
        path: A `.keras` file, or `linear.npz` of a linear model.

    Raises:
        SettingsError: The file is not a Keras model, or is damaged.
    """
    import_quietly()
    if path.suffix == ".npz":
        from voxlift.app.runs.linear import load_linear_network  # numpy: not for --help

        return load_linear_network(path)
    import voxlift.models.layers  # noqa: F401 - importing a layer registers it
    from voxlift.models.loading import read_network

    try:
        network = read_network(path)
    except ValueError as error:
        hint = " Modules are named by custom=[MODULE]." if "custom layers" in str(error) else ""
        raise SettingsError(f"Expected a Keras model that can be loaded. {error}{hint}") from error
    protect_scoring(network)
    return network


def save_network(network: Any, path: Path) -> None:  # noqa: ANN401 - Keras ships no types
    """Write a `.keras` file atomically.

    Raises:
        OSError: Writing failed, such as on a full disk; an existing file is unchanged.
    """
    remove_leftovers(path.parent)
    with atomic_write(path) as temporary:
        network.save(temporary)


def save_trained(network: Any, path: Path) -> None:  # noqa: ANN401 - as above
    """Write a trained network, or one that contains it, without optimiser and loss; as `save_network`."""
    import keras

    # The same layers and weights, but single tensors as input and output: lists of one warn when called.
    inputs = network.inputs[0] if len(network.inputs) == 1 else network.inputs
    bare = keras.Model(inputs, network.outputs[0], name=network.name)
    # A slice model contains the compiled network, whose optimiser would be required whenever it is loaded.
    parts = [part for part in bare._flatten_layers() if getattr(part, "compiled", False)]  # noqa: SLF001 - Keras has no public walk into nested networks
    try:
        for part in parts:
            part.compiled = False
        save_network(bare, path)
    finally:
        for part in parts:
            part.compiled = True


def volume_shape(network: Any) -> tuple[int | None, ...]:  # noqa: ANN401 - as above
    """Return depth, height, width and channels of the volumes that a network takes; None for any size."""
    return tuple(network.inputs[0].shape[1:])
