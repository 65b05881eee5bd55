"""Writes a MedMNIST3D benchmark file as NIfTI volumes and a table with its official split, once.

The arrays carry no geometry. Their axes are taken as (depth, height, width), as the benchmark's own 3D
networks do; each voxel is given 1 mm and the volume is stored in RAS, so that what a pipeline prepares is
the benchmark's array
again: depth along S, height along A, width along R. Left and right, front and back are therefore names of
axes here, not of the patient's sides.
"""

import csv
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nibabel as nib
import numpy as np

from voxlift.data_pipelines.geometry import from_tensor_axes
from voxlift.data_pipelines.medmnist_arrays import Part, read_parts
from voxlift.data_pipelines.tables import ManifestError
from voxlift.data_pipelines.whole import whole_file

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
    with whole_file(folder / _file_name(part, index)) as place:
        nib.save(image, place)


def _write_table(table: Path, jobs: list[tuple[Part, int]], names: tuple[str, ...]) -> None:
    with whole_file(table) as place, place.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["participant_id", "file", "label", "split"])
        for part, index in jobs:
            name = _file_name(part, index)
            writer.writerow([name.removesuffix(".nii.gz"), name, names[part.labels[index]], part.split])
