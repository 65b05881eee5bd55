"""Write the phantom data set: NIfTI files whose labels only a volume shows, for each task.

The files are as heterogeneous as a real archive's: int16 with different slopes and intercepts, stored in
several axis orders and anisotropic spacings. Subjects come in pairs, one of each class, that share this
geometry, so that no header predicts the class. `scenes` describes what the volumes show. A mask of what
decides the class, and the world coordinates of its middle, are columns of the table.

At 2 mm and 32 voxels along each axis a prepared volume contains all that decides the class.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.files import atomic_write, remove_leftovers
from voxlift.data_pipelines.geometry import from_tensor_axes
from voxlift.data_pipelines.phantom.scenes import Field, draw_mask, draw_scene
from voxlift.data_pipelines.phantom.tasks import (
    PHANTOM_CLASSES,
    PHANTOM_TASKS,
    Truth,
    draw_truth,
    label_cells,
    label_columns,
)

__all__ = ["PHANTOM_CLASSES", "PHANTOM_TASKS", "Scanner", "draw_subject", "write_phantom"]

# A change in what is drawn gets a new number, and so a new folder.
_VERSION = 1
COLUMNS = (  # those of the label follow `file`
    "participant_id",
    "file",
    "orientation",
    "spacing",
    "sex",
    "age",
    "site",
    "mask",
    "x",
    "y",
    "z",
)
_FIELD_MM = 68.0
_ORIENTATIONS = ("RAS", "LAS", "LPI", "LPS", "RSA", "PIR", "AIL")
_SCALINGS = ((1.0, -1024.0), (1.0, 0.0), (0.5, 0.0), (2.0, -1000.0))


@dataclass(frozen=True)
class Scanner:
    """The way in which a pair of subjects is stored.

    Args:
        field: Shape and spacing.
        orientation: Axis codes of the stored axes, such as "LPI".
        slope: Scale of the stored int16 numbers.
        inter: Offset of the stored int16 numbers.
        origin: World coordinates of the first voxel in RAS, mm.
    """

    field: Field
    orientation: str
    slope: float
    inter: float
    origin: tuple[float, float, float]


def write_phantom(
    root: str | Path,
    *,
    task: str,
    subjects: int,
    seed: int,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Return the table of a phantom data set below `root`, written where it does not exist yet.

    The folder's name has every setting, so that another seed or size uses another folder. Each file is
    written atomically, so that a run that was interrupted is completed by the next one.

    Args:
        root: Folder of all phantom data sets.
        task: One of `PHANTOM_TASKS`.
        subjects: Number of subjects; of two classes, half of each.
        seed: Of everything that is drawn.
        workers: Number of threads.
        progress: Called with (written, to write) after each file.

    Returns:
        Path of `labels.csv` with the columns `COLUMNS` and those of the label.

    Raises:
        ManifestError: The task is unknown, or there are fewer than two subjects.
    """
    if task not in PHANTOM_TASKS:
        raise ManifestError(f"There is no phantom task {task!r}. Expected {' or '.join(PHANTOM_TASKS)}.")
    if subjects < 2:
        raise ManifestError(f"The phantom needs two subjects or more, one of each class, not {subjects}.")
    folder = Path(root).expanduser().absolute() / f"{task}-{subjects}subjects-seed{seed}-v{_VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    masks = _mask_path(folder, 0).parent
    masks.mkdir(exist_ok=True)
    remove_leftovers(folder)
    remove_leftovers(masks)
    missing = [index for index in range(subjects) if not _is_written(folder, index)]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        futures = [pool.submit(_write_subject, folder, index, task=task, seed=seed) for index in missing]
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()
            if progress is not None:
                progress(done, len(missing))
    table = folder / "labels.csv"
    if missing or not _has_columns(table, task):
        _write_table(table, task, subjects, seed)
    return table


def draw_subject(index: int, *, task: str, seed: int) -> tuple[NDArray[np.float32], Truth, Scanner]:
    """Return a subject's voxels in HU [D, H, W], what they show, and how it is to be stored.

    Args:
        index: Number of the subject, from 0.
        task: One of `PHANTOM_TASKS`.
        seed: Of the data set.
    """
    scanner, truth = _draw_scanner(index // 2, seed), draw_truth(index, task=task, seed=seed)
    return draw_scene(scanner.field, _scene_rng(index, task, seed), task=task, truth=truth), truth, scanner


def draw_subject_mask(index: int, *, task: str, seed: int) -> tuple[NDArray[np.bool_], Scanner]:
    """Return the mask [D, H, W] of what decides a subject's class, and how it is to be stored.

    Args:
        index: Number of the subject, from 0.
        task: One of `PHANTOM_TASKS`.
        seed: Of the data set.
    """
    scanner, truth = _draw_scanner(index // 2, seed), draw_truth(index, task=task, seed=seed)
    return draw_mask(scanner.field, _scene_rng(index, task, seed), task=task, truth=truth), scanner


def _scene_rng(index: int, task: str, seed: int) -> np.random.Generator:
    return np.random.default_rng((seed, index, 1, list(PHANTOM_TASKS).index(task)))


def _draw_scanner(pair: int, seed: int) -> Scanner:
    rng = np.random.default_rng((seed, pair, 0))
    depth = float(rng.choice([1.5, 1.75, 2.0, 2.25]))
    height, width = (float(rng.choice([1.25, 1.5, 1.75])) for _ in range(2))
    spacing = (depth, height, width)
    shape = tuple(int(np.ceil(_FIELD_MM / step)) for step in spacing)
    slope, inter = _SCALINGS[rng.integers(len(_SCALINGS))]
    x, y, z = rng.uniform(-50, 50, 3).round(2)
    orientation = _ORIENTATIONS[rng.integers(len(_ORIENTATIONS))]
    return Scanner(Field((shape[0], shape[1], shape[2]), spacing), orientation, slope, inter, (x, y, z))


def _file_name(index: int) -> str:
    return f"sub-{index + 1:04d}.nii.gz"


def _mask_path(folder: Path, index: int) -> Path:
    # Beside the folder of the images, which can thus be given to a command as a folder of scans.
    return folder.with_name(f"{folder.name}-masks") / f"sub-{index + 1:04d}_mask.nii.gz"


def _is_written(folder: Path, index: int) -> bool:
    return (folder / _file_name(index)).exists() and _mask_path(folder, index).exists()


def _write_subject(folder: Path, index: int, *, task: str, seed: int) -> None:
    if not (folder / _file_name(index)).exists():  # earlier versions wrote no masks
        voxels, _, scanner = draw_subject(index, task=task, seed=seed)
        image = _to_image(voxels, scanner)
        with atomic_write(folder / _file_name(index)) as temporary:
            nib.save(image, temporary)
    mask, scanner = draw_subject_mask(index, task=task, seed=seed)
    with atomic_write(_mask_path(folder, index)) as temporary:
        nib.save(_store(mask.astype(np.uint8), scanner), temporary)


def _to_image(voxels: NDArray[np.float32], scanner: Scanner) -> nib.Nifti1Image:
    image = _store(np.round((voxels - scanner.inter) / scanner.slope).astype(np.int16), scanner)
    # With a slope set explicitly, nibabel does not choose a scaling of its own.
    image.header.set_slope_inter(scanner.slope, scanner.inter)
    return image


def _store(voxels: NDArray[np.integer], scanner: Scanner) -> nib.Nifti1Image:
    """Return stored numbers [D, H, W] as an image with the scanner's axes and place in the world."""
    stored = from_tensor_axes(voxels)  # [R, A, S]
    affine = np.diag([*scanner.field.spacing[::-1], 1.0])
    affine[:3, 3] = scanner.origin
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(scanner.orientation)
    )
    affine = affine @ nib.orientations.inv_ornt_aff(turn, stored.shape)
    image = nib.Nifti1Image(nib.orientations.apply_orientation(stored, turn), affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    return image


def _write_table(table: Path, task: str, subjects: int, seed: int) -> None:
    with atomic_write(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_columns_of(task))
        for index in range(subjects):
            scanner = _draw_scanner(index // 2, seed)
            spacing = "x".join(f"{step:g}" for step in scanner.field.spacing)
            labels = label_cells(draw_truth(index, task=task, seed=seed), task)
            row = [f"sub-{index + 1:04d}", _file_name(index), *labels, scanner.orientation, spacing]
            mask = os.path.relpath(_mask_path(table.parent, index), table.parent)
            writer.writerow([*row, *_draw_person(index, seed), mask, *_find_centre(index, task, seed)])


def _find_centre(index: int, task: str, seed: int) -> tuple[str, ...]:
    """Return the world coordinates of the middle of a subject's mask in mm, RAS."""
    mask, scanner = draw_subject_mask(index, task=task, seed=seed)
    middle = np.argwhere(mask).mean(axis=0) * scanner.field.spacing
    return tuple(f"{mm:.2f}" for mm in middle[::-1] + scanner.origin)


def _columns_of(task: str) -> tuple[str, ...]:
    return (*COLUMNS[:2], *label_columns(task), *COLUMNS[2:])


def _has_columns(table: Path, task: str) -> bool:
    """Return whether a table exists and has today's columns; earlier versions wrote fewer."""
    if not table.exists():
        return False
    with table.open(encoding="utf-8", newline="") as file:
        return tuple(next(csv.reader(file), ())) == _columns_of(task)


def _draw_person(index: int, seed: int) -> tuple[str, str, str]:
    """Return a subject's sex, age in years and site, none of which depends on the label.

    A pair shares its site, as it shares the scanner. A few ages are missing, as in a real table.
    """
    rng = np.random.default_rng((seed, index, 3))
    sex, age = "FM"[rng.integers(2)], int(rng.integers(25, 90))
    site = "ABC"[np.random.default_rng((seed, index // 2, 4)).integers(3)]
    return sex, "n/a" if rng.random() < 0.05 else str(age), site
