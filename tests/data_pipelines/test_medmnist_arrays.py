import numpy as np
import pytest

from voxlift.data_pipelines.medmnist import read_parts
from voxlift.data_pipelines.tables.manifest import ManifestError

SIDES = (3, 5, 7)
COUNTS = {"train": 6, "val": 3, "test": 4}


def arrays(**changes):
    rng = np.random.default_rng(0)
    made = {}
    for split, count in COUNTS.items():
        made[f"{split}_images"] = rng.integers(0, 256, (count, *SIDES), dtype=np.uint8)
        made[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    return made | changes


def read(folder, made):
    np.savez(folder / "x.npz", **made)
    return read_parts(folder / "x.npz")


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("images", lambda images: images[..., None]),
        ("images", lambda images: images[:, None]),
        ("images", lambda images: np.repeat(images[..., None], 3, axis=-1)),
        ("images", lambda images: images.astype(np.float32)),
        ("images", lambda images: images.astype(np.int64)),
        ("labels", lambda labels: labels.astype(np.float64)),
        ("labels", lambda labels: labels.astype(np.int64)[:, 0]),
    ],
)
def test_what_means_the_same_is_read_the_same(tmp_path, what, change):
    plain = arrays()
    changed = {name: change(array) if name.endswith(what) else array for name, array in plain.items()}
    for part in read(tmp_path, changed):
        assert part.images.dtype == np.uint8
        np.testing.assert_array_equal(part.images, plain[f"{part.split}_images"])
        np.testing.assert_array_equal(part.labels, plain[f"{part.split}_labels"][:, 0])


def test_a_file_without_val_or_with_an_empty_test_leaves_them_out(tmp_path):
    absent = {name: array for name, array in arrays().items() if not name.startswith("val")}
    empty = {name: array[:0] if name.startswith("test") else array for name, array in absent.items()}
    assert [part.split for part in read(tmp_path, absent)] == ["train", "test"]
    assert [part.split for part in read(tmp_path, empty)] == ["train"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"val_images": np.zeros((3, 28, 28), np.uint8)}, "2D MedMNIST"),
        ({"train_images": np.zeros((6, 28, 28, 3), np.uint8)}, "2D MedMNIST"),
        ({"train_images": np.zeros((6, 28), np.uint8)}, "expected .subjects, depth"),
        ({"train_images": np.zeros((0, 3, 5, 7), np.uint8)}, "expected .subjects, depth"),
        ({"train_images": np.arange(90, dtype=np.uint8).reshape(6, 5, 1, 1, 3)}, "one grey channel"),
        ({"train_images": np.full((6, 3, 5, 7), 0.5)}, "uint8 voxels, received float64 of 0.5 to 0.5"),
        ({"train_images": np.full((6, 3, 5, 7), -1000)}, "uint8 voxels, received int64 of -1000"),
        ({"train_images": np.full((6, 3, 5, 7), np.nan)}, "uint8 voxels"),
        ({"test_labels": np.zeros((9, 1), np.uint8)}, "one label per volume"),
        ({"test_labels": np.full((4, 1), 0.5)}, "whole numbers, received float64 from 0.5"),
        ({"test_labels": np.full((4, 1), -1)}, "whole numbers, received int64 from -1"),
        ({"test_labels": np.full((4, 1), "a")}, "whole numbers, received <U1"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, changes, expected):
    with pytest.raises(ManifestError, match=expected):
        read(tmp_path, arrays(**changes))


def test_a_split_with_one_of_its_two_arrays_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="lacks the arrays val_labels"):
        read(tmp_path, {name: array for name, array in arrays().items() if name != "val_labels"})


def test_python_objects_are_not_unpickled(tmp_path):
    with pytest.raises(ManifestError, match="Python objects"):
        read(tmp_path, arrays(test_labels=np.array([{}] * 4)))
