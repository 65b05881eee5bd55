"""`linear.npz`: the weights of a linear model, written, read, and built as a network of volumes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from voxlift.app.config import SettingsError
from voxlift.app.errors import shorten
from voxlift.app.files import write_beside
from voxlift.data_pipelines.npz import read_npz

if TYPE_CHECKING:
    import keras

ARRAYS = ("weights", "intercept", "mean", "scale", "strength")


@dataclass(frozen=True, eq=False)
class LinearWeights:
    """A linear model: logits [K] = `weights` . (features - `mean`) / `scale` + `intercept`.

    A model of K grades has one weight for each feature, and K - 1 intercepts: log odds above each cut.

    Attributes:
        weights: [D, H, W, C, K] of voxels, or [F, K] of vectors: logits per standard deviation of a feature.
        intercept: [K].
        mean: [D, H, W, C] or [F], of the training volumes.
        scale: As `mean`: the standard deviation over the training volumes.
        strength: The chosen C, the inverse strength of the L2 penalty.
    """

    weights: NDArray[np.float32]
    intercept: NDArray[np.float64]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    strength: float

    def save(self, path: Path) -> None:
        """Write `linear.npz` atomically, without pickles."""
        arrays: dict[str, Any] = {name: np.asarray(getattr(self, name)) for name in ARRAYS}

        def write(file: IO[bytes]) -> None:
            np.savez_compressed(file, **arrays)

        write_beside(path, write)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what `save` wrote.

        Raises:
            SettingsError: The file cannot be read, or lacks an array.
        """
        try:
            arrays: dict[str, Any] = dict(read_npz(path, ARRAYS))
            return cls(**arrays | {"strength": float(arrays["strength"])})
        except (OSError, ValueError, TypeError) as error:
            raise SettingsError(
                f"{path}: expected the weights of a linear model; {shorten(error)}."
            ) from error


def load_linear_network(path: Path) -> keras.Model:
    """Return the linear model in a file as a network from volumes [B, D, H, W, C] to float32 outputs [B, K].

    Raises:
        SettingsError: The file cannot be read, or its model takes vectors instead of volumes.
    """
    saved = LinearWeights.read(path)
    if saved.weights.ndim != 5:
        raise SettingsError(
            f"{path}: expected a model of images; this one scores vectors of data.embeddings, which no image "
            "gives. voxlift-evaluate scores it again; its results are in metrics.json and predictions.csv."
        )
    from voxlift.models.heads import append_cuts
    from voxlift.models.linear import build_linear

    weights, outputs = saved.weights / saved.scale[..., None], saved.weights.shape[-1]
    if len(saved.intercept) == outputs:
        return build_linear(weights, saved.intercept, mean=saved.mean)
    value = build_linear(weights, np.zeros(outputs), mean=saved.mean)
    return append_cuts(value, [float(-one) for one in saved.intercept])
