"""Write a MedMNIST3D benchmark file as NIfTI volumes and a table with its official split, once.

The arrays have no geometry. Their axes are taken as (depth, height, width), as the benchmark's own 3D
networks do. Each voxel gets 1 mm and the volume is stored in RAS, so that a prepared volume is the
benchmark's array again: depth along S, height along A, width along R. Left and right, front and back are
therefore names of axes here, not the patient's sides.
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

from voxlift.data_pipelines.errors import ManifestError, list_some
from voxlift.data_pipelines.files import atomic_write, remove_leftovers
from voxlift.data_pipelines.geometry import from_tensor_axes
from voxlift.data_pipelines.tables.rows import SPLITS

# Source: Yang et al., Scientific Data 10:41 (2023), doi:10.1038/s41597-022-01721-8.
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
RGB_CHANNELS = 3  # MedMNIST's own loader repeats a grey volume in three channels where colour is requested

Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, eq=False)
class Part:
    """One split of the benchmark: images [N, D, H, W] uint8 and labels [N] int64."""

    split: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def file_name(self, index: int) -> str:
        """Return the name of a volume's file."""
        return f"{self.split}_{index:05d}.nii.gz"


def write_medmnist(
    npz: str | Path,
    root: str | Path,
    *,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Return the table of the benchmark's volumes below `root`, written where they do not exist yet.

    A run that was interrupted is completed by the next one. A file of the same name but with other content
    gets a folder of its own.

    Args:
        npz: A MedMNIST3D file, at 28^3 or 64^3.
        root: Folder of all such data sets.
        workers: Number of threads.
        progress: Called with (written, to write) after each file.

    Returns:
        Path of `labels.csv` with the columns participant_id, file, label, split; labels are class names.

    Raises:
        ManifestError: The file does not exist, is not such an npz file, is two-dimensional, or its arrays do
            not fit each other.
    """
    source = Path(npz).expanduser().absolute()
    if not source.is_file():
        raise ManifestError(f"There is no MedMNIST file {source}. Set data.npz to a MedMNIST3D .npz file.")
    # Size and modification time distinguish two downloads of one name without reading them.
    facts = source.stat()
    folder = Path(root).expanduser().absolute() / f"{source.stem}-{facts.st_size:x}-{facts.st_mtime_ns:x}"
    table = folder / "labels.csv"
    if table.exists():
        return table
    parts = read_parts(source)
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    volumes = [(part, index) for part in parts for index in range(len(part.labels))]
    missing = [(part, index) for part, index in volumes if not (folder / part.file_name(index)).exists()]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        futures = [pool.submit(_write_volume, folder, part, index) for part, index in missing]
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()
            if progress is not None:
                progress(done, len(missing))
    _write_table(table, volumes, name_classes(source.stem, 1 + max(int(part.labels.max()) for part in parts)))
    return table


def name_classes(stem: str, count: int) -> tuple[str, ...]:
    """Return the class names of a MedMNIST3D set; unknown sets have class_0, class_1, ...

    >>> name_classes("vesselmnist3d_64", 2)
    ('vessel', 'aneurysm')

    Args:
        stem: The file's name without its suffix.
        count: Number of classes, at least.
    """
    known = MEDMNIST_CLASSES.get(stem.lower().split("_")[0], ())
    return known if len(known) >= count else tuple(f"class_{index}" for index in range(count))


def classes_of(table: Path, npz: str | Path) -> tuple[str, ...]:
    """Return the classes that occur in a table, in index order.

    Args:
        table: Written by `write_medmnist`.
        npz: The file from which it was written.
    """
    with table.open(encoding="utf-8", newline="") as file:
        found = {row["label"] for row in csv.DictReader(file)}
    known = name_classes(Path(npz).stem, 0)
    if found <= set(known):
        return tuple(name for name in known if name in found)
    return tuple(sorted(found, key=_class_number))


def _class_number(name: str) -> int:
    return int(name.removeprefix("class_"))


def _write_volume(folder: Path, part: Part, index: int) -> None:
    image = nib.Nifti1Image(from_tensor_axes(part.images[index]), np.eye(4))
    image.set_sform(np.eye(4), 1)
    image.set_qform(np.eye(4), 1)
    with atomic_write(folder / part.file_name(index)) as temporary:
        nib.save(image, temporary)


def _write_table(table: Path, volumes: list[tuple[Part, int]], classes: tuple[str, ...]) -> None:
    with atomic_write(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["participant_id", "file", "label", "split"])
        for part, index in volumes:
            name = part.file_name(index)
            writer.writerow([name.removesuffix(".nii.gz"), name, classes[part.labels[index]], part.split])


def read_parts(source: Path) -> list[Part]:
    """Return the splits of a MedMNIST3D file, training first; a split without volumes is left out.

    Raises:
        ManifestError: It is not such a file, is two-dimensional, or its arrays do not fit each other.
    """
    arrays = _load_arrays(source)
    for split in ("val", "test"):
        if _is_empty(arrays, split):
            arrays = {name: array for name, array in arrays.items() if not name.startswith(f"{split}_")}
    present = [
        split for split in SPLITS if split == "train" or any(name.startswith(split) for name in arrays)
    ]
    needed = [f"{split}_{kind}" for split in present for kind in ("images", "labels")]
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise ManifestError(
            f"{source} lacks the arrays {list_some(missing)}; it has {list_some(arrays) or 'none'}. "
            "Expected a MedMNIST3D file."
        )
    return [
        _build_part(split, arrays[f"{split}_images"], arrays[f"{split}_labels"], source) for split in present
    ]


def _load_arrays(source: Path) -> Arrays:
    try:
        # Opened here, since numpy does not close a broken archive.
        with source.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return {} if isinstance(loaded, np.ndarray) else dict(loaded)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise ManifestError(f"{source} cannot be read as an npz file: {_explain(error)}") from error


def _explain(error: Exception) -> str:
    """Return why numpy could not read a file, and how to fix it; numpy takes unknown content for a pickle."""
    text = str(error)
    if "Object arrays" in text:
        return "it has an array of Python objects, which could run code. Save it as numbers."
    if "pickled" in text:
        return "it is not an archive of arrays. Download it again."
    return f"{text or 'it is empty'}. Download it again."


def _is_empty(arrays: Arrays, split: str) -> bool:
    found = [arrays[name] for name in (f"{split}_images", f"{split}_labels") if name in arrays]
    return all(len(array) == 0 for array in found if array.ndim)


def _build_part(split: str, images: NDArray[np.generic], labels: NDArray[np.generic], source: Path) -> Part:
    where = f"{source}, {split}_images of shape {images.shape}"
    if images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == RGB_CHANNELS):
        raise ManifestError(f"{where}: this is a 2D MedMNIST file. Use a 3D one, such as nodulemnist3d.npz.")
    images = _drop_channels(images)
    if images.ndim != 4 or 0 in images.shape:
        raise ManifestError(
            f"{where}: expected (subjects, depth, height, width), or these and one grey channel."
        )
    if labels.shape not in ((len(images), 1), (len(images),)):
        raise ManifestError(f"{where}: expected one label per volume, received {labels.shape} labels.")
    if not _are_integers_up_to(labels, np.inf):
        found = f"{labels.dtype} from {labels.min()}" if labels.dtype.kind in "iuf" else str(labels.dtype)
        raise ManifestError(f"{where}: expected labels that are integers from 0, received {found}.")
    if not _are_integers_up_to(images, 255):
        found = f" of {images.min():g} to {images.max():g}" if images.dtype.kind in "iuf" else ""
        raise ManifestError(
            f"{where}: expected uint8 voxels, received {images.dtype}{found}. Save them as integers from 0 "
            "to 255, or write NIfTI files and a table for data=manifest."
        )
    return Part(split, images.astype(np.uint8, copy=False), labels.reshape(-1).astype(np.int64))


def _drop_channels(images: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return `[N, D, H, W]` where a fifth axis, first or last of a volume, has one channel or equal ones."""
    if images.ndim != 5:
        return images
    for axis in (4, 1):
        count = images.shape[axis]
        first: NDArray[np.generic] = images[..., 0] if axis == 4 else images[:, 0]
        if count == 1 or (count == RGB_CHANNELS and (images == np.expand_dims(first, axis)).all()):
            return first
    return images


def _are_integers_up_to(values: NDArray[np.generic], most: float) -> bool:
    """Return whether all values are integers from 0 to `most`, in any numeric type."""
    if values.dtype == np.uint8 and most >= 255:
        return True
    if values.dtype.kind not in "iuf":
        return False
    numbers = values.astype(np.float64)
    return bool(((numbers >= 0) & (numbers <= most) & (numbers == np.rint(numbers))).all())
