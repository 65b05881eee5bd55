"""Writes a MedMNIST3D benchmark file as NIfTI volumes and a table with its official split, once.

The arrays carry no geometry. Their axes are taken as (depth, height, width), as the benchmark's own 3D
networks do; each voxel is given 1 mm and the volume is stored in RAS, so that what a pipeline prepares is
the benchmark's array
again: depth along S, height along A, width along R. Left and right, front and back are therefore names of
axes here, not of the patient's sides.
"""

import csv
import os
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from data_pipelines.rows import SPLITS
from data_pipelines.tables import ManifestError, list_some

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


@dataclass(frozen=True)
class Part:
    """One split of the benchmark: images [N, D, H, W] uint8 and labels [N] int64."""

    split: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


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
    parts = _read_parts(source)
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
    """
    known = MEDMNIST_CLASSES.get(stem.lower().split("_")[0], ())
    return known if len(known) >= count else tuple(f"class_{index}" for index in range(count))


def _read_parts(source: Path) -> list[Part]:
    arrays = _load_arrays(source)
    absent = [f"{split}_{what}" for split in SPLITS for what in ("images", "labels")]
    absent = [name for name in absent if name not in arrays]
    if absent:
        raise ManifestError(
            f"{source} lacks the arrays {list_some(absent)}; it holds {list_some(arrays) or 'none'}. "
            "Expected a MedMNIST3D file."
        )
    return [_check(split, arrays[f"{split}_images"], arrays[f"{split}_labels"], source) for split in SPLITS]


def _load_arrays(source: Path) -> dict[str, NDArray[np.generic]]:
    try:
        # Opened here, since numpy leaves a broken archive open.
        with source.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            arrays = {} if isinstance(loaded, np.ndarray) else dict(loaded)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise ManifestError(f"{source} cannot be read as an npz file: {error}. Download it again.") from error
    return arrays


def _check(split: str, images: NDArray[np.generic], labels: NDArray[np.generic], source: Path) -> Part:
    where = f"{source}, {split}_images of shape {images.shape}"
    if images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 3):
        raise ManifestError(f"{where}: this is a 2D MedMNIST file. Take a 3D one, such as nodulemnist3d.npz.")
    if images.ndim != 4:
        raise ManifestError(f"{where}: expected (subjects, depth, height, width).")
    if images.dtype != np.uint8:
        raise ManifestError(f"{where}: expected uint8 voxels, received {images.dtype}.")
    if labels.shape not in ((len(images), 1), (len(images),)):
        raise ManifestError(f"{where}: expected one label per volume, received {labels.shape} labels.")
    if labels.dtype.kind not in "iu" or (labels.size and labels.min() < 0):
        raise ManifestError(f"{where}: expected labels from 0 on as integers, received {labels.dtype}.")
    return Part(split, images.astype(np.uint8), labels.reshape(-1).astype(np.int64))


def _file_name(part: Part, index: int) -> str:
    return f"{part.split}_{index:05d}.nii.gz"


def _write_image(folder: Path, part: Part, index: int) -> None:
    image = nib.Nifti1Image(part.images[index].transpose(2, 1, 0), np.eye(4))
    image.set_sform(np.eye(4), 1)
    image.set_qform(np.eye(4), 1)
    temporary = folder / f".{os.getpid()}-{_file_name(part, index)}"
    nib.save(image, temporary)
    temporary.replace(folder / _file_name(part, index))


def _write_table(table: Path, jobs: list[tuple[Part, int]], names: tuple[str, ...]) -> None:
    temporary = table.with_name(f".{os.getpid()}-{table.name}")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["participant_id", "file", "label", "split"])
        for part, index in jobs:
            name = _file_name(part, index)
            writer.writerow([name.removesuffix(".nii.gz"), name, names[part.labels[index]], part.split])
    temporary.replace(table)
