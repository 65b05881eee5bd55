"""The state of a training: arrays of the network and the optimizer, running means, states of callbacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import ops

from voxlift.app.config import SettingsError
from voxlift.app.training.callbacks.stateful import KeepBest, StatefulCallback, StepCounter
from voxlift.app.training.checkpoints import Arrays, Checkpoint, Checkpoints


def gather_arrays(network: Any) -> Arrays:  # noqa: ANN401 - untyped Keras
    """Return all arrays that the next step depends on, from weights and seeds to slots and averages."""
    return {
        f"{part}/{number:05d}": ops.convert_to_numpy(variable)
        for part, variables in _parts(network).items()
        for number, variable in enumerate(variables)
    }


def restore_arrays(network: Any, arrays: Arrays, *, parts: tuple[str, ...]) -> None:  # noqa: ANN401 - untyped Keras
    """Put the arrays of `gather_arrays` back into a network that was compiled in the same way.

    Raises:
        SettingsError: The network has other variables than the one that was saved.
    """
    for part in parts:
        variables, values = _parts(network)[part], select_arrays(arrays, part)
        ours, theirs = [tuple(v.shape) for v in variables], [value.shape for value in values]
        if ours != theirs:
            raise SettingsError(
                f"The checkpoint's {part} has {len(theirs)} arrays that do not fit the {len(ours)} that "
                "were built: the settings or Voxlift have changed. Start a new training in another run_dir."
            )
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def select_arrays(arrays: Arrays, part: str) -> list[Any]:
    """Return the arrays of one part, in order."""
    return [arrays[name] for name in sorted(arrays) if name.startswith(f"{part}/")]


def _parts(network: Any) -> dict[str, list[Any]]:  # noqa: ANN401 - untyped Keras
    return {
        "network": list(network.variables),  # with the seeds of dropout
        "optimizer": list(network.optimizer.variables),
        "means": list(network.metrics_variables),
    }


class SaveCheckpoints(StatefulCallback):
    """Writes a checkpoint after each epoch and, unless `steps` is 0, every `steps` batches."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        *,
        counter: StepCounter,
        keep: KeepBest,
        stateful: Sequence[StatefulCallback],
        steps: int = 0,
        steps_per_epoch: int = 0,
    ) -> None:
        super().__init__()
        self.checkpoints, self.counter, self.keep, self.steps = checkpoints, counter, keep, steps
        self.steps_per_epoch = steps_per_epoch
        self.stateful = tuple(stateful)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Save within an epoch; after its last batch the end of the epoch saves."""
        step = self.counter.position.step
        if self.steps and step % self.steps == 0 and step < self.steps_per_epoch:
            self._save()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - as above
        """Save at the end of the epoch."""
        self._save()

    def _save(self) -> None:
        checkpoint = Checkpoint(
            self.counter.position,
            gather_arrays(self.model),
            collect_states(self.stateful),
            self.keep.arrays(),
        )
        self.checkpoints.save(checkpoint, best_epoch=self.keep.best_epoch)


def collect_states(stateful: Sequence[StatefulCallback]) -> dict[str, Any]:
    """Return the states of all callbacks, by the name of their class."""
    return {type(callback).__name__: callback.get_state() for callback in stateful}


def restore_states(stateful: Sequence[StatefulCallback], state: dict[str, Any]) -> None:
    """Restore what `collect_states` returned; a callback that was not there before keeps its new state."""
    for callback in stateful:
        if type(callback).__name__ in state:
            callback.set_state(state[type(callback).__name__])
