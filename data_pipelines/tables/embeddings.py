"""Files of embedding vectors, keyed by image or subject: read, written, and matched to records."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlift.data_pipelines.errors import ManifestError, list_some
from voxlift.data_pipelines.files import atomic_write
from voxlift.data_pipelines.npz import read_npz
from voxlift.data_pipelines.tables.manifest import Record, join_images
from voxlift.data_pipelines.tables.reader import read_table

Vector = NDArray[np.float64]
Vectors = dict[str, list[Vector]]

KEYS = ("image", "subject")  # columns or arrays of names; a table with neither has its names first
VALUES = "vectors"  # the array of vectors [N, F] in .npz and .h5


def read_embeddings(path: Path) -> Vectors:
    """Return the vectors of a file under each of their names; a name may have several.

    A CSV or TSV table has a column `image` or `subject` (or any first column) of names, and numbers in all
    others. An .npz or .h5 file has the arrays `vectors` [N, F] and `image` or `subject` [N]; or an array [F]
    or [n, F] under each name.

    Args:
        path: File that ends in .csv, .tsv, .npz, .h5 or .hdf5.

    Raises:
        ManifestError: The file cannot be read, or its vectors are not finite or differ in length.
    """
    try:
        vectors = _choose_reader(path)(path)
    except ManifestError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise ManifestError(f"{path}: expected embedding vectors; {error}") from error
    _check_vectors(vectors, path)
    return vectors


def find_vectors(vectors: Vectors, records: Sequence[Record]) -> NDArray[np.float64]:
    """Return one vector per record, [N, F]: that of its image, else of its subject; several are averaged.

    The name of an image is its path, or the last parts of it, such as `sub-01/anat/sub-01_T1w.nii.gz`.

    Args:
        vectors: From `read_embeddings`.
        records: Of a data set.

    Raises:
        ManifestError: Records have no vector; all are counted.
    """
    names = [_find_name(one, vectors) for one in records]
    missing = [
        f"{one.subject} ({join_images(one.images)})"
        for one, name in zip(records, names, strict=True)
        if name is None
    ]
    if missing:
        raise ManifestError(
            f"data.embeddings: expected a vector for each of the {len(records)} images, by the path of the "
            f"image or by its subject; {len(missing)} have none: {list_some(missing)}. The file has names "
            f"such as {list_some(sorted(vectors)[:3])}."
        )
    _refuse_shared_names(names, records)
    return np.array([np.mean(vectors[name], axis=0) for name in names if name is not None])


def write_embeddings(
    path: Path, *, subjects: Sequence[str], images: Sequence[str], vectors: NDArray[np.floating[Any]]
) -> None:
    """Write vectors [N, F] in the form that `read_embeddings` reads, .csv or .npz by the ending."""
    if path.suffix == ".npz":
        with atomic_write(path) as temporary, temporary.open("wb") as binary:
            np.savez_compressed(
                binary, subject=np.array(subjects, str), image=np.array(images, str), vectors=vectors
            )
        return
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["subject", "image", *(f"f{index}" for index in range(vectors.shape[1]))])
        for subject, image, vector in zip(subjects, images, vectors, strict=True):
            writer.writerow([subject, image, *(f"{value:.9g}" for value in vector)])


def _choose_reader(path: Path) -> Callable[[Path], Vectors]:
    readers = {
        ".csv": _read_table,
        ".tsv": _read_table,
        ".npz": _read_npz,
        ".h5": _read_hdf5,
        ".hdf5": _read_hdf5,
    }
    try:
        return readers[path.suffix.lower()]
    except KeyError:
        raise ManifestError(f"{path}: expected a file that ends in {', '.join(readers)}.") from None


def _read_table(path: Path) -> Vectors:
    table = read_table(path)
    keys = [name for name in KEYS if name in table.columns] or [table.columns[0]]
    columns = [name for name in table.columns if name not in keys]
    if not columns:
        raise ManifestError(f"{path}: expected columns of numbers beside {', '.join(keys)}.")
    found: Vectors = defaultdict(list)
    for line, row in zip(table.lines, table.rows, strict=True):
        try:
            vector = np.array([float(table.with_decimal_point(row[name])) for name in columns])
        except ValueError as error:
            raise ManifestError(f"{path}, line {line}: expected numbers; {error}.") from error
        for key in keys:
            found[row[key]].append(vector)
    return dict(found)


def _read_npz(path: Path) -> Vectors:
    return _group_arrays(read_npz(path))


def _read_hdf5(path: Path) -> Vectors:
    import h5py  # type: ignore[import-untyped]  # noqa: PLC0415 - slow, and only for this format

    arrays: dict[str, NDArray[Any]] = {}

    def collect(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            is_text = h5py.check_string_dtype(item.dtype) is not None
            arrays[name] = np.asarray(item.asstr()[:] if is_text else item[()])

    with h5py.File(path) as file:
        file.visititems(collect)
    return _group_arrays(arrays)


def _group_arrays(arrays: dict[str, NDArray[Any]]) -> Vectors:
    """Return vectors by name, from an array under each name or from columns of names beside `vectors`."""
    if VALUES not in arrays:
        return {name: list(np.atleast_2d(array).astype(np.float64)) for name, array in arrays.items()}
    columns = [arrays[key] for key in KEYS if key in arrays]
    if not columns:
        raise ValueError(f"beside {VALUES}, an array {' or '.join(KEYS)} of names is missing")
    found: Vectors = defaultdict(list)
    values = arrays[VALUES].astype(np.float64)
    for column in columns:
        for name, vector in zip(column.tolist(), values, strict=True):
            found[str(name)].append(vector)
    return dict(found)


def _check_vectors(vectors: Vectors, path: Path) -> None:
    lengths = {vector.shape for own in vectors.values() for vector in own}
    if len(lengths) != 1 or lengths == {(0,)} or len(next(iter(lengths))) != 1:
        found = ", ".join(sorted("x".join(map(str, shape)) for shape in lengths)) or "none"
        raise ManifestError(f"{path}: expected vectors of one length; found {found}.")
    bad = [name for name, own in vectors.items() if not all(np.isfinite(vector).all() for vector in own)]
    if bad:
        raise ManifestError(f"{path}: expected finite numbers; the vectors of {list_some(bad)} hold others.")


def _find_name(record: Record, vectors: Vectors) -> str | None:
    return next((name for name in _record_names(record) if name in vectors), None)


def _refuse_shared_names(names: Sequence[str | None], records: Sequence[Record]) -> None:
    """Raise an error if the end of a path, such as `T1w.nii.gz`, names images of several subjects."""
    subjects = defaultdict(set)
    for name, record in zip(names, records, strict=True):
        subjects[name].add(record.subject)
    shared = [name for name, own in subjects.items() if len(own) > 1]
    if shared:
        raise ManifestError(
            "data.embeddings: expected names that belong to one subject each; several subjects have an image "
            f"{list_some(shared)}. Give longer paths, or the subjects."
        )


def _record_names(record: Record) -> Iterable[str]:
    """Yield the names under which a record's vector may stand, the most specific first."""
    yield record.item
    yield join_images(record.images)
    parts = record.images[0].parts
    for start in range(len(parts)):
        yield Path(*parts[start:]).as_posix()
    yield record.subject
