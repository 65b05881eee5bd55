"""The phantom: slices of both classes are alike, volumes differ, and files are written once, reproducibly."""

import csv
from collections import Counter

import nibabel as nib
import numpy as np
import pytest
from scipy.stats import ks_2samp

from voxlift.data_pipelines.errors import ManifestError
from voxlift.data_pipelines.phantom.scenes import Field, draw_beads, draw_helix, draw_scene
from voxlift.data_pipelines.phantom.tasks import PHANTOM_TASKS, Truth
from voxlift.data_pipelines.phantom.write import PHANTOM_CLASSES, draw_subject, write_phantom
from voxlift.data_pipelines.tables.manifest import TableOptions, load_manifest

FIELD = Field((34, 40, 44), (2.0, 1.75, 1.5))


def load(table, **options):
    return load_manifest(table, TableOptions(**options))


def draw_pair(seed, task):
    return [draw_scene(FIELD, np.random.default_rng(seed), task=task, truth=Truth(label)) for label in (0, 1)]


@pytest.mark.parametrize("seed", range(3))
def test_left_and_right_helices_have_exactly_the_same_slices(seed):
    left, right = draw_pair(seed, "chirality")
    assert Counter(s.tobytes() for s in left) == Counter(s.tobytes() for s in right)
    np.testing.assert_array_equal(left, right[::-1])
    assert (left != right).any()


def test_the_helix_is_left_handed_in_patient_axes():
    for seed in range(5):
        opacity = draw_helix(FIELD, np.random.default_rng(seed))
        _, y, x = FIELD.axes()
        centre = np.array([[(s * x[0]).sum() / s.sum(), (s * y[0]).sum() / s.sum()] for s in opacity])
        # Around the depth axis (S), from R towards A is the right-handed turn.
        middle = (centre.max(axis=0) + centre.min(axis=0)) / 2
        angle = np.unwrap(np.arctan2(*(centre - middle).T[::-1]))
        assert angle[-1] - angle[0] < -2 * np.pi


def beads(seed):
    return [draw_beads(FIELD, np.random.default_rng(seed), is_broken=label == 1) for label in (0, 1)]


@pytest.mark.parametrize("seed", range(4))
def test_bead_rows_of_both_classes_agree_slice_by_slice_except_for_positions(seed):
    row, broken = beads(seed)
    np.testing.assert_allclose(row.sum(axis=(1, 2)), broken.sum(axis=(1, 2)), rtol=0.03, atol=0.2)
    moved = np.array([not np.array_equal(a, b) for a, b in zip(row, broken, strict=True)])
    # One bead, so one run of slices, and not all of them.
    assert np.count_nonzero(np.diff(np.flatnonzero(moved)) > 1) <= 0
    assert 6 <= moved.sum() <= 12


def slice_statistics(label, volumes=400):
    found = []
    for seed in range(volumes):
        rng = np.random.default_rng((seed, label))
        # One slice of each volume: slices of one volume share the position and size of their beads.
        image = draw_beads(FIELD, rng, is_broken=label == 1)[rng.integers(FIELD.shape[0])]
        total = max(float(image.sum()), 1e-6)
        places = [(image.sum(axis=1 - axis) @ np.arange(image.shape[axis])) / total for axis in (0, 1)]
        found.append(((image > 0.5).sum(), image.max(), total, *places))
    return np.array(found)


def test_discs_in_a_slice_are_distributed_alike_in_both_classes():
    vessel, nodule = slice_statistics(0), slice_statistics(1)
    for column in range(vessel.shape[1]):
        assert ks_2samp(vessel[:, column], nodule[:, column]).pvalue > 0.01


def test_classes_differ_in_the_volume():
    # A column along the row: unbroken in one class, with the gap of a bead in the other.
    for seed in range(4):
        row, broken = beads(seed)
        assert (row.max(axis=0) > 0.5).sum() < 0.75 * (broken.max(axis=0) > 0.5).sum()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom")
    return write_phantom(root, task="nodule", subjects=8, seed=3)


def test_files_hold_what_was_drawn_in_patient_axes(written):
    manifest = load(
        written, image_column="file", subject_column="participant_id", classes=PHANTOM_CLASSES["nodule"]
    )
    assert Counter(record.label for record in manifest.records) == {0: 4, 1: 4}
    for index, record in enumerate(manifest.records):
        voxels, truth, scanner = draw_subject(index, task="nodule", seed=3)
        assert record.label == truth.label
        image = nib.load(record.images[0])
        assert image.get_data_dtype() == np.int16
        assert (image.dataobj.slope, image.dataobj.inter) == (scanner.slope, scanner.inter)
        assert "".join(nib.aff2axcodes(image.affine)) == scanner.orientation
        canonical = nib.as_closest_canonical(image)
        assert canonical.header.get_zooms() == pytest.approx(scanner.field.spacing[::-1])
        stored = canonical.get_fdata().transpose(2, 1, 0)
        np.testing.assert_allclose(stored, voxels, atol=0.51 * scanner.slope)
        np.testing.assert_allclose(canonical.affine[:3, 3], scanner.origin, atol=1e-3)


@pytest.mark.parametrize("task", list(PHANTOM_TASKS))
def test_masks_mark_what_decides_the_class_on_the_grid_of_the_image(tmp_path, task):
    table = write_phantom(tmp_path, task=task, subjects=4, seed=0)
    with table.open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        image, mask = (nib.load(table.parent / row[name]) for name in ("file", "mask"))
        np.testing.assert_array_equal(image.affine, mask.affine)
        voxels, inside = image.get_fdata(), np.asarray(mask.dataobj) == 1
        assert voxels[inside].mean() > voxels[~inside].mean() + 100  # soft tissue in a lung
        middle = np.append(np.argwhere(inside).mean(axis=0), 1)
        centre = [float(row[axis]) for axis in "xyz"]
        np.testing.assert_allclose((image.affine @ middle)[:3], centre, atol=0.01)
    if task == "nodule":  # the same slices of both classes show the bead
        pair = [np.asarray(nib.load(table.parent / row["mask"]).dataobj).sum() for row in rows[:2]]
        assert min(pair) > 0.5 * max(pair)


def test_no_header_predicts_the_class(written):
    with written.open() as file:
        rows = list(csv.DictReader(file))
    headers = {
        label: Counter((r["orientation"], r["spacing"]) for r in rows if r["label"] == label)
        for label in PHANTOM_CLASSES["nodule"]
    }
    assert headers["vessel"] == headers["nodule"]
    assert len({r["orientation"] for r in rows}) > 1


def test_it_is_written_once_and_completed_after_a_kill(written):
    root, seen = written.parent.parent, []
    settings = {
        "task": "nodule",
        "subjects": 8,
        "seed": 3,
        "progress": lambda done, total: seen.append((done, total)),
    }
    before = {path: path.stat().st_mtime_ns for path in written.parent.iterdir()}
    assert write_phantom(root, **settings) == written
    assert seen == []
    assert before == {path: path.stat().st_mtime_ns for path in written.parent.iterdir()}
    lost = written.parent / "sub-0005.nii.gz"
    voxels = nib.load(lost).get_fdata()
    lost.unlink()
    written.unlink()
    assert write_phantom(root, **settings) == written
    assert seen == [(1, 1)]
    np.testing.assert_array_equal(nib.load(lost).get_fdata(), voxels)
    assert before.keys() == set(written.parent.iterdir())


def test_another_setting_gets_another_folder_and_other_voxels(tmp_path):
    tables = {
        write_phantom(tmp_path, task=task, subjects=subjects, seed=seed, workers=1)
        for task, subjects, seed in (
            ("nodule", 2, 0),
            ("chirality", 2, 0),
            ("nodule", 3, 0),
            ("nodule", 2, 1),
        )
    }
    assert len({table.parent for table in tables}) == 4
    first = {nib.load(table.parent / "sub-0001.nii.gz").dataobj.get_unscaled().tobytes() for table in tables}
    assert len(first) == 3


@pytest.mark.parametrize(
    ("task", "subjects", "expected"), [("nodul", 8, "'nodul'.*nodule or chirality"), ("nodule", 1, "1")]
)
def test_unknown_tasks_and_too_few_subjects_are_refused(tmp_path, task, subjects, expected):
    with pytest.raises(ManifestError, match=expected):
        write_phantom(tmp_path, task=task, subjects=subjects, seed=0)
