"""Volume, surface, mean and percentiles of masks and images."""

import nibabel as nib
import numpy as np
import pytest

from voxlift.data_pipelines.audit.measures import MEASURES, measure_record, surface_mm2
from voxlift.data_pipelines.tables.manifest import Record
from voxlift.data_pipelines.tables.regions import Region


def ball(radius_mm, spacing):
    shape = [int(2 * radius_mm / one) + 7 for one in spacing]
    index = np.indices(shape) - (np.array(shape).reshape(3, 1, 1, 1) - 1) / 2
    return ((index * np.array(spacing).reshape(3, 1, 1, 1)) ** 2).sum(0) <= radius_mm**2


def write(path, voxels, spacing):
    nib.save(nib.Nifti1Image(voxels, np.diag([*spacing, 1.0])), path)
    return path


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 2.0, 1.5)])
def test_the_surface_of_a_ball_and_a_box_is_that_of_geometry(spacing):
    assert surface_mm2(ball(20, spacing), spacing) == pytest.approx(4 * np.pi * 20**2, rel=0.03)
    box = np.pad(np.ones((30, 20, 24), bool), 3)
    a, b, c = np.multiply((30, 20, 24), spacing)
    assert surface_mm2(box, spacing) == pytest.approx(
        2 * (a * b + b * c + a * c), rel=0.1
    )  # corners are rounded
    assert surface_mm2(np.zeros((3, 3, 3), bool), spacing) == 0


def test_a_mask_beside_the_image_gives_volume_and_values_inside(tmp_path):
    spacing = (1.0, 2.0, 1.5)
    inside = ball(12, spacing)
    values = np.random.default_rng(0).normal(100, 10, inside.shape).astype(np.float32)
    image, mask = (
        write(tmp_path / "i.nii.gz", values, spacing),
        write(tmp_path / "m.nii.gz", inside.astype(np.uint8), spacing),
    )
    found = measure_record(Record("s", (image,), 0, None, 1, region=Region(mask=mask)))
    assert tuple(found) == MEASURES
    assert found["volume_ml"] == pytest.approx(inside.sum() * 3 / 1000, abs=1e-4)
    assert found["volume_ml"] == pytest.approx(4 / 3 * np.pi * 12**3 / 1000, rel=0.03)
    assert found["mean"] == pytest.approx(values[inside].mean(), rel=1e-5)
    wanted = np.percentile(values[inside], [5, 50, 95])
    assert [found["p05"], found["p50"], found["p95"]] == pytest.approx(wanted, rel=1e-5)


def test_an_image_that_is_a_mask_or_cannot_be_read_is_measured_as_such(tmp_path):
    inside = ball(8, (1.0, 1.0, 1.0))
    mask = write(tmp_path / "m.nii.gz", inside.astype(np.uint8), (1.0, 1.0, 1.0))
    assert measure_record(Record("s", (mask,), 0, None, 1))["volume_ml"] == round(inside.sum() / 1000, 4)
    (tmp_path / "bad.nii.gz").write_bytes(b"junk")
    assert set(measure_record(Record("s", (tmp_path / "bad.nii.gz",), 0, None, 1)).values()) == {""}
