"""Prepared volumes on disk, as a value: what the cache hands to the pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int, int, int]  # depth, height, width, channels


@dataclass(frozen=True)
class PreparedVolumes:
    """Volumes that all have one shape and type, a file each: the raw voxels in C order, nothing else.

    Attributes:
        files: one per volume.
        shape: of each, [D, H, W, C].
        dtype: of the stored voxels: `float16`, `float32`, `uint8` or `int16`.
    """

    files: tuple[Path, ...]
    shape: Shape
    dtype: str

    def __len__(self) -> int:
        """How many volumes there are."""
        return len(self.files)

    def arrays(self) -> Iterator[NDArray[Any]]:
        """The voxels [D, H, W, C] of each volume in turn, as stored."""
        for file in self.files:
            yield np.fromfile(file, self.dtype).reshape(self.shape)
