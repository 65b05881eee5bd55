"""A MedMNIST3D file becomes NIfTI volumes and a table with its official split; other files are refused."""

import csv

import nibabel as nib
import numpy as np
import pytest

from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.medmnist import classes_of, name_classes, read_parts, write_medmnist
from voxlift.data_pipelines.tables.manifest import TableOptions, load_manifest

SIDES = (3, 5, 7)
COUNTS = {"train": 6, "val": 3, "test": 4}


def load(table, **options):
    return load_manifest(table, TableOptions(**options))


def arrays(classes=2, **changes):
    rng = np.random.default_rng(0)
    made = {}
    for split, count in COUNTS.items():
        made[f"{split}_images"] = rng.integers(0, 256, (count, *SIDES), dtype=np.uint8)
        made[f"{split}_labels"] = (np.arange(count) % classes).astype(np.uint8)[:, None]
    return made | changes


@pytest.fixture
def npz(tmp_path):
    path = tmp_path / "vesselmnist3d_64.npz"
    np.savez(path, **arrays())
    return path


def test_volumes_and_the_official_split_are_written(npz, tmp_path):
    table = write_medmnist(npz, tmp_path / "out")
    manifest = load(
        table,
        image_column="file",
        subject_column="participant_id",
        split_column="split",
        classes=name_classes(npz.stem, 2),
    )
    assert manifest.classes == ("vessel", "aneurysm")
    written = arrays()
    for split in ("train", "val", "test"):
        own = [record for record in manifest.records if record.split == split]
        assert [record.label for record in own] == written[f"{split}_labels"].ravel().tolist()
        for record, expected in zip(own, written[f"{split}_images"], strict=True):
            image = nib.load(record.images[0])
            stored = np.asarray(image.dataobj)
            assert stored.dtype == np.uint8
            # Depth along S, height along A, width along R.
            assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
            assert image.header.get_zooms() == (1, 1, 1)
            np.testing.assert_array_equal(stored.transpose(2, 1, 0), expected)


def test_it_is_written_once_and_completed_after_a_kill(npz, tmp_path):
    seen = []
    table = write_medmnist(npz, tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 13) for done in range(1, 14)]
    before = {path: path.stat().st_mtime_ns for path in table.parent.iterdir()}
    write_medmnist(npz, tmp_path / "out")
    assert before == {path: path.stat().st_mtime_ns for path in table.parent.iterdir()}
    table.unlink()
    (table.parent / "val_00001.nii.gz").unlink()
    seen.clear()
    write_medmnist(npz, tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 1)]
    assert before.keys() == set(table.parent.iterdir())


def test_another_content_under_the_same_name_gets_another_folder(npz, tmp_path):
    first = write_medmnist(npz, tmp_path / "out")
    np.savez(npz, **arrays(classes=3))
    second = write_medmnist(npz, tmp_path / "out")
    assert first != second
    with second.open() as file:
        assert {row["label"] for row in csv.DictReader(file)} == {"class_0", "class_1", "class_2"}


def test_classes_are_those_that_occur_in_the_benchmarks_order(tmp_path):
    labels = {f"{split}_labels": np.array([[10], [3], [3]] * 2)[:n] for split, n in COUNTS.items()}
    for stem, expected in (("organmnist3d", ("femur-right", "pancreas")), ("mine", ("class_3", "class_10"))):
        np.savez(tmp_path / f"{stem}.npz", **arrays(**labels))
        table = write_medmnist(tmp_path / f"{stem}.npz", tmp_path / "out")
        assert classes_of(table, tmp_path / f"{stem}.npz") == expected


def test_files_of_another_kind_are_refused(tmp_path):
    with pytest.raises(ManifestError, match=r"no\.npz.*data\.npz"):
        write_medmnist(tmp_path / "no.npz", tmp_path)
    np.savez(tmp_path / "x.npz", images=np.zeros(3))
    with pytest.raises(ManifestError, match=r"train_images, train_labels.* images"):
        write_medmnist(tmp_path / "x.npz", tmp_path)
    for content in (b"", b"no archive", b"PK\x03\x04 cut off"):
        (tmp_path / "x.npz").write_bytes(content)
        with pytest.raises(ManifestError, match=r"x\.npz"):
            write_medmnist(tmp_path / "x.npz", tmp_path)
    np.save(tmp_path / "y.npy", np.zeros(3))
    with pytest.raises(ManifestError, match=r"y\.npy.*train_images"):
        write_medmnist(tmp_path / "y.npy", tmp_path)


def read(folder, made):
    np.savez(folder / "x.npz", **made)
    return read_parts(folder / "x.npz")


@pytest.mark.parametrize(
    ("kind", "change"),
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
def test_equivalent_arrays_are_read_the_same(tmp_path, kind, change):
    plain = arrays()
    changed = {name: change(array) if name.endswith(kind) else array for name, array in plain.items()}
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
        ({"val_images": np.zeros((3, 28, 28), np.uint8)}, r"val_images of shape \(3, 28, 28\): .*2D"),
        ({"train_images": np.zeros((6, 28, 28, 3), np.uint8)}, "2D"),
        ({"train_images": np.zeros((6, 28), np.uint8)}, r"\(6, 28\)"),
        ({"train_images": np.zeros((0, 3, 5, 7), np.uint8)}, r"\(0, 3, 5, 7\)"),
        ({"train_images": np.arange(90, dtype=np.uint8).reshape(6, 5, 1, 1, 3)}, r"\(6, 5, 1, 1, 3\)"),
        ({"train_images": np.full((6, 3, 5, 7), 0.5)}, "uint8.* float64 of 0.5 to 0.5"),
        ({"train_images": np.full((6, 3, 5, 7), -1000)}, "uint8.* int64 of -1000"),
        ({"train_images": np.full((6, 3, 5, 7), np.nan)}, "uint8.* float64"),
        ({"test_labels": np.zeros((9, 1), np.uint8)}, r"test_images.*\(9, 1\)"),
        ({"test_labels": np.full((4, 1), 0.5)}, "float64 from 0.5"),
        ({"test_labels": np.full((4, 1), -1)}, "int64 from -1"),
        ({"test_labels": np.full((4, 1), "a")}, "<U1"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, changes, expected):
    with pytest.raises(ManifestError, match=expected):
        read(tmp_path, arrays(**changes))


def test_a_split_with_one_of_its_two_arrays_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="val_labels"):
        read(tmp_path, {name: array for name, array in arrays().items() if name != "val_labels"})


def test_python_objects_are_not_unpickled(tmp_path):
    with pytest.raises(ManifestError, match="Python"):
        read(tmp_path, arrays(test_labels=np.array([{}] * 4)))
