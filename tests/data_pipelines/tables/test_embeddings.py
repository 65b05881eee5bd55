"""Vectors are found by image, by the end of its path, or by subject; what is wrong is named."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.tables.embeddings import find_vectors, read_embeddings, write_embeddings
from voxlift.data_pipelines.tables.manifest import Record

RECORDS = tuple(
    Record(f"sub-0{n}", (Path(f"/data/sub-0{n}/anat/sub-0{n}_{kind}.nii.gz"),), 0, None, n)
    for n in (1, 2)
    for kind in ("T1w", "T2w")
)


@pytest.mark.parametrize(
    "name", [lambda one: str(one.images[0]), lambda one: one.images[0].name, lambda one: one.subject]
)
def test_a_vector_is_found_by_image_path_file_name_or_subject(name):
    vectors = {}
    for index, record in enumerate(RECORDS):
        vectors.setdefault(name(record), []).append(np.array([index, 1.0]))
    found = find_vectors(vectors, RECORDS)
    by_subject = name(RECORDS[0]) == "sub-01"
    expected = [0.5, 0.5, 2.5, 2.5] if by_subject else [0, 1, 2, 3]
    np.testing.assert_array_equal(found[:, 0], expected)


def test_every_format_gives_the_vectors_of_each_name(tmp_path):
    vectors = np.random.default_rng(5).normal(size=(3, 2)).round(3)
    names = ["sub-01", "sub-02", "sub-01"]
    rows = [f"{name},{a},{b}" for name, (a, b) in zip(names, vectors, strict=True)]
    (tmp_path / "v.csv").write_text("\n".join(["who,a,b", *rows]), encoding="utf-8")
    np.savez(tmp_path / "v.npz", subject=np.array(names), vectors=vectors)
    with h5py.File(tmp_path / "v.h5", "w") as columns:
        columns["vectors"], columns["subject"] = vectors, names
    with h5py.File(tmp_path / "v.hdf5", "w") as by_name:
        by_name["sub-01"], by_name["sub-02"] = vectors[::2], vectors[1]
    for file in sorted(tmp_path.iterdir()):
        found = read_embeddings(file)
        assert set(found) == set(names), file
        np.testing.assert_array_equal(found["sub-01"], vectors[::2])
        np.testing.assert_array_equal(found["sub-02"], vectors[1:2])


@pytest.mark.parametrize("ending", ["csv", "npz"])
def test_what_is_written_is_read(ending, tmp_path):
    file = tmp_path / f"v.{ending}"
    values = np.random.default_rng(0).normal(size=(len(RECORDS), 3)).astype(np.float32)
    subjects, images = [one.subject for one in RECORDS], [str(one.images[0]) for one in RECORDS]
    write_embeddings(file, subjects=subjects, images=images, vectors=values)
    np.testing.assert_allclose(find_vectors(read_embeddings(file), RECORDS), values, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "named"),
    [("subject,a\nsub-01,x\n", "line 2"), ("subject\nsub-01\n", "subject"), ("subject,a\ns,nan\n", "s hold")],
)
def test_a_table_without_numbers_is_refused(text, named, tmp_path):
    (tmp_path / "v.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ManifestError, match=named):
        read_embeddings(tmp_path / "v.csv")


def test_vectors_of_two_lengths_another_ending_and_no_file_are_refused(tmp_path):
    np.savez(tmp_path / "v.npz", a=np.zeros(3), b=np.zeros(4))
    for name in ("v.npz", "v.txt", "absent.npz"):
        with pytest.raises(ManifestError, match=name):
            read_embeddings(tmp_path / name)


def test_a_file_name_that_two_subjects_share_is_refused():
    records = [Record(name, (Path(f"/{name}/T1w.nii"),), 0, None, 1) for name in ("a", "b")]
    with pytest.raises(ManifestError, match=r"T1w\.nii"):
        find_vectors({"T1w.nii": [np.zeros(2)]}, records)
