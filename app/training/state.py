"""The numbers of a training: those of the network, of the optimiser, and the epoch's running means."""

from __future__ import annotations

from typing import Any

from keras import ops

from voxlift.app.settings import SettingsError
from voxlift.app.training.checkpoints import Arrays


def gather_arrays(network: Any) -> Arrays:  # noqa: ANN401 - untyped Keras
    """Every number that the next step depends on: weights, statistics, seeds, slots, loss scale, averages."""
    return {
        f"{part}/{number:05d}": ops.convert_to_numpy(variable)
        for part, variables in _parts(network).items()
        for number, variable in enumerate(variables)
    }


def restore_arrays(network: Any, arrays: Arrays, *, parts: tuple[str, ...]) -> None:  # noqa: ANN401 - untyped Keras
    """Put numbers of `gather_arrays` back into a network compiled in the same way.

    Raises:
        SettingsError: the network has other variables than the one that was saved.
    """
    for part in parts:
        variables, values = _parts(network)[part], select_arrays(arrays, part)
        ours, theirs = [tuple(v.shape) for v in variables], [value.shape for value in values]
        if ours != theirs:
            raise SettingsError(
                f"The checkpoint's {part} has {len(theirs)} arrays that do not fit the {len(ours)} that "
                "were built: the settings or Voxlift have changed since. Train anew in another run_dir."
            )
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def select_arrays(arrays: Arrays, part: str) -> list[Any]:
    """One part's arrays, in order."""
    return [arrays[name] for name in sorted(arrays) if name.startswith(f"{part}/")]


def _parts(network: Any) -> dict[str, list[Any]]:  # noqa: ANN401 - untyped Keras
    return {
        "network": list(network.variables),  # with the seeds of dropout
        "optimizer": list(network.optimizer.variables),
        "means": list(network.metrics_variables),
    }
