"""What ends a training early because something went wrong."""

from __future__ import annotations

import logging

import keras
import numpy as np

log = logging.getLogger("voxlift")


class StopOnNonFinite(keras.callbacks.Callback):
    """Ends training at the first loss that is not finite; the best weights so far stay."""

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Look at the running loss."""
        if not np.isfinite((logs or {}).get("loss", 0.0)):
            log.info(
                "The loss is not finite at step %d: stopped. A lower optimizer.learning_rate often helps.",
                batch,
            )
            self.model.stop_training = True
