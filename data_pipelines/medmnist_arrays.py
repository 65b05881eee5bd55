"""Reads the arrays of a MedMNIST3D file and holds them to what the benchmark is.

What means the same is taken however it was saved: an axis of one channel, or of three equal ones, goes;
labels may be any kind of whole number; voxels any type that holds 0 to 255. A file without val or without
test leaves that split to be cut from its training subjects.
"""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.rows import SPLITS
from voxlift.data_pipelines.tables import ManifestError, list_some

Arrays = dict[str, NDArray[np.generic]]

CHANNELS = 3
"""MedMNIST's own loader repeats a grey volume as three channels where colour is asked for."""


@dataclass(frozen=True, eq=False)
class Part:
    """One split of the benchmark: images [N, D, H, W] uint8 and labels [N] int64."""

    split: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def read_parts(source: Path) -> list[Part]:
    """Returns the splits that the file holds, training first; one without volumes is left out.

    Raises:
        ManifestError: It is no such file, is two-dimensional, or its arrays do not fit each other.
    """
    arrays = _load_arrays(source)
    for split in ("val", "test"):
        if _is_without(arrays, split):
            arrays = {name: array for name, array in arrays.items() if not name.startswith(f"{split}_")}
    held = [split for split in SPLITS if split == "train" or any(name.startswith(split) for name in arrays)]
    absent = [f"{split}_{what}" for split in held for what in ("images", "labels")]
    absent = [name for name in absent if name not in arrays]
    if absent:
        raise ManifestError(
            f"{source} lacks the arrays {list_some(absent)}; it holds {list_some(arrays) or 'none'}. "
            "Expected a MedMNIST3D file."
        )
    return [_check(split, arrays[f"{split}_images"], arrays[f"{split}_labels"], source) for split in held]


def _is_without(arrays: Arrays, split: str) -> bool:
    held = [arrays[name] for name in (f"{split}_images", f"{split}_labels") if name in arrays]
    return all(len(array) == 0 for array in held if array.ndim)


def _load_arrays(source: Path) -> Arrays:
    try:
        # Opened here, since numpy leaves a broken archive open.
        with source.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return {} if isinstance(loaded, np.ndarray) else dict(loaded)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise ManifestError(f"{source} cannot be read as an npz file: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Why numpy could not read it, and the way out; numpy takes whatever it does not know for a pickle."""
    said = str(error)
    if "Object arrays" in said:
        return "an array of Python objects, which could run code. Save it as numbers."
    if "pickled" in said:
        return "it is no archive of arrays. Download it again."
    return f"{said or 'it is empty'}. Download it again."


def _check(split: str, images: NDArray[np.generic], labels: NDArray[np.generic], source: Path) -> Part:
    where = f"{source}, {split}_images of shape {images.shape}"
    if images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == CHANNELS):
        raise ManifestError(f"{where}: this is a 2D MedMNIST file. Take a 3D one, such as nodulemnist3d.npz.")
    images = _without_channels(images)
    if images.ndim != 4 or 0 in images.shape:
        raise ManifestError(
            f"{where}: expected (subjects, depth, height, width), or one grey channel beside them."
        )
    if labels.shape not in ((len(images), 1), (len(images),)):
        raise ManifestError(f"{where}: expected one label per volume, received {labels.shape} labels.")
    if not _are_whole(labels, np.inf):
        found = f"{labels.dtype} from {labels.min()}" if labels.dtype.kind in "iuf" else str(labels.dtype)
        raise ManifestError(f"{where}: expected labels from 0 on as whole numbers, received {found}.")
    if not _are_whole(images, 255):
        found = f" of {images.min():g} to {images.max():g}" if images.dtype.kind in "iuf" else ""
        raise ManifestError(
            f"{where}: expected uint8 voxels, received {images.dtype}{found}. Save them as whole numbers "
            "from 0 to 255, or write NIfTI files and a table for data=manifest."
        )
    return Part(split, images.astype(np.uint8, copy=False), labels.reshape(-1).astype(np.int64))


def _without_channels(images: NDArray[np.generic]) -> NDArray[np.generic]:
    """Returns `[N, D, H, W]` where a fifth axis, first or last of a volume, says nothing of its own."""
    if images.ndim != 5:
        return images
    for axis in (4, 1):
        count = images.shape[axis]
        first: NDArray[np.generic] = images[..., 0] if axis == 4 else images[:, 0]
        if count == 1 or (count == CHANNELS and (images == np.expand_dims(first, axis)).all()):
            return first
    return images


def _are_whole(values: NDArray[np.generic], most: float) -> bool:
    """Returns whether all values are whole numbers from 0 to `most`; the benchmark's own type is not read."""
    if values.dtype == np.uint8 and most >= 255:
        return True
    if values.dtype.kind not in "iuf":
        return False
    numbers = values.astype(np.float64)
    return bool(((numbers >= 0) & (numbers <= most) & (numbers == np.rint(numbers))).all())
