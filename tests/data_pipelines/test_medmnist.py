import csv

import nibabel as nib
import numpy as np
import pytest

from voxlift.data_pipelines.medmnist import classes_of, name_classes, write_medmnist
from voxlift.data_pipelines.tables.manifest import ManifestError, TableOptions, load_manifest

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


def test_volumes_and_the_official_split_survive(npz, tmp_path):
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


def test_files_that_are_no_benchmark_are_refused(tmp_path):
    with pytest.raises(ManifestError, match="There is no MedMNIST file"):
        write_medmnist(tmp_path / "no.npz", tmp_path)
    np.savez(tmp_path / "x.npz", images=np.zeros(3))
    with pytest.raises(ManifestError, match=r"lacks the arrays train_images.*it holds images"):
        write_medmnist(tmp_path / "x.npz", tmp_path)
    for content in (b"", b"no archive", b"PK\x03\x04 cut off"):
        (tmp_path / "x.npz").write_bytes(content)
        with pytest.raises(ManifestError, match=r"x\.npz"):
            write_medmnist(tmp_path / "x.npz", tmp_path)
    np.save(tmp_path / "y.npy", np.zeros(3))
    with pytest.raises(ManifestError, match="it holds none"):
        write_medmnist(tmp_path / "y.npy", tmp_path)
