"""MLflow: the run's settings and curves on a tracking server or in a folder, by the extra `mlflow`."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import Any

from voxlift.app.settings import LoggerSettings
from voxlift.app.training.callbacks.place import Remembering

LONGEST = 500  # characters of a parameter's value that every server takes


class WriteMlflow(Remembering):
    """Writes the settings once and the logs of each epoch; a resumed training goes on with the same run.

    Args:
        logger: where to (`mlflow_uri`: a server or a folder; MLflow's own choice where it is None), and the
            experiment's name.
        name: of the run.
        params: the settings, flat.
    """

    def __init__(self, logger: LoggerSettings, *, name: str, params: Mapping[str, Any]) -> None:
        super().__init__()
        self.logger, self.name, self.params = logger, name, params
        self.run_id: str | None = None
        self.client: Any = None

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's signature
        """Open the run, or the one that was begun before."""
        if self.client is not None:
            return
        mlflow = importlib.import_module("mlflow")
        self.client = mlflow.MlflowClient(tracking_uri=self.logger.mlflow_uri)
        if self.run_id is None:
            self.run_id = self._create_run()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Add a point to each curve."""
        for name, value in (logs or {}).items():
            if math.isfinite(value):
                self.client.log_metric(self.run_id, name, float(value), step=epoch)

    def memory(self) -> dict[str, Any]:
        """Which run it is."""
        return {"run_id": self.run_id}

    def recall(self, memory: dict[str, Any]) -> None:
        """Go on with that run."""
        self.run_id = memory["run_id"]

    def finish(self) -> None:
        """Say that the training has reached its end."""
        if self.client is not None:
            self.client.set_terminated(self.run_id)

    def _create_run(self) -> str:
        found = self.client.get_experiment_by_name(self.logger.mlflow_experiment)
        experiment = (
            found.experiment_id if found else self.client.create_experiment(self.logger.mlflow_experiment)
        )
        run = self.client.create_run(experiment, run_name=self.name)
        for key, value in self.params.items():
            self.client.log_param(run.info.run_id, key, str(value)[:LONGEST])
        return str(run.info.run_id)
