"""Writes a MedMNIST3D benchmark file as NIfTI volumes and a table with its official split, once.

The arrays carry no geometry. Their axes are taken as (depth, height, width), as the benchmark's own 3D
networks do; each voxel is given 1 mm and the volume is stored in RAS, so that what a pipeline prepares is
the benchmark's array
again: depth along S, height along A, width along R. Left and right, front and back are therefore names of
axes here, not of the patient's sides.
"""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.atomic import atomic_write
from voxlift.data_pipelines.geometry import from_tensor_axes
from voxlift.data_pipelines.errors import ManifestError, list_some
from voxlift.data_pipelines.tables.rows import SPLITS

# Source: Yang et al., Scientific Data 10:41 (2023), doi 10.1038/s41597-022-01721-8.
MEDMNIST_CLASSES = {
    "organmnist3d": (
        *("liver", "kidney-right", "kidney-left", "femur-right", "femur-left", "bladder"),
        *("heart", "lung-right", "lung-left", "spleen", "pancreas"),
    ),
    "nodulemnist3d": ("benign", "malignant"),
    "adrenalmnist3d": ("normal", "hyperplasia"),
    "fracturemnist3d": ("buckle", "nondisplaced", "displaced"),
    "vesselmnist3d": ("vessel", "aneurysm"),
    "synapsemnist3d": ("inhibitory", "excitatory"),
}


def write_medmnist(
    npz: str | Path,
    root: str | Path,
    *,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Returns the table of the benchmark's volumes below `root`, written where they are not there yet.

    A run that was cut short is completed by the next; a file of the same name and another content gets a
    folder of its own.

    Args:
        npz: A MedMNIST3D file, at 28^3 or 64^3.
        root: Folder of all such data sets.
        workers: Threads.
        progress: Called with (written, to write) after each file.

    Returns:
        Path of `labels.csv` with the columns participant_id, file, label, split; labels are class names.

    Raises:
        ManifestError: The file is absent, no such npz, two-dimensional, or its arrays do not fit each other.
    """
    source = Path(npz).expanduser().absolute()
    if not source.is_file():
        raise ManifestError(f"There is no MedMNIST file {source}. Set data.npz to a MedMNIST3D .npz file.")
    # Size and time of change tell two downloads of one name apart without reading them.
    facts = source.stat()
    folder = Path(root).expanduser().absolute() / f"{source.stem}-{facts.st_size:x}-{facts.st_mtime_ns:x}"
    table = folder / "labels.csv"
    if table.exists():
        return table
    parts = read_parts(source)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(part, index) for part in parts for index in range(len(part.labels))]
    absent = [(part, index) for part, index in jobs if not (folder / _file_name(part, index)).exists()]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        futures = [pool.submit(_write_image, folder, part, index) for part, index in absent]
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()
            if progress is not None:
                progress(done, len(absent))
    _write_table(table, jobs, name_classes(source.stem, 1 + max(int(part.labels.max()) for part in parts)))
    return table


def name_classes(stem: str, count: int) -> tuple[str, ...]:
    """Returns the class names of a MedMNIST3D set by its file's stem; unknown sets have class_0, class_1, ...

    >>> name_classes("vesselmnist3d_64", 2)
    ('vessel', 'aneurysm')

    Args:
        stem: The file's name without its ending.
        count: How many classes its labels name, at least.
    """
    known = MEDMNIST_CLASSES.get(stem.lower().split("_")[0], ())
    return known if len(known) >= count else tuple(f"class_{index}" for index in range(count))


def classes_of(table: Path, npz: str | Path) -> tuple[str, ...]:
    """Returns the classes that occur in a table which `write_medmnist` made of `npz`, in index order.

    Args:
        table: From `write_medmnist`.
        npz: The file that it was made of.
    """
    with table.open(encoding="utf-8", newline="") as file:
        found = {row["label"] for row in csv.DictReader(file)}
    known = name_classes(Path(npz).stem, 0)
    return tuple(sorted(found, key=lambda name: known.index(name) if name in known else _number(name)))


def _number(name: str) -> int:
    return int(name.removeprefix("class_"))


def _file_name(part: Part, index: int) -> str:
    return f"{part.split}_{index:05d}.nii.gz"


def _write_image(folder: Path, part: Part, index: int) -> None:
    image = nib.Nifti1Image(from_tensor_axes(part.images[index]), np.eye(4))
    image.set_sform(np.eye(4), 1)
    image.set_qform(np.eye(4), 1)
    with atomic_write(folder / _file_name(part, index)) as place:
        nib.save(image, place)


def _write_table(table: Path, jobs: list[tuple[Part, int]], names: tuple[str, ...]) -> None:
    with atomic_write(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["participant_id", "file", "label", "split"])
        for part, index in jobs:
            name = _file_name(part, index)
            writer.writerow([name.removesuffix(".nii.gz"), name, names[part.labels[index]], part.split])


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
