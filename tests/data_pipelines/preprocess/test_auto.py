"""The grid and intensities that `preprocess=auto` decides by the images."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from voxlift.data_pipelines.preprocess.auto import (
    KINDS,
    Probe,
    decide_preprocess,
    fit_budget,
    probe_records,
    recognise_kind,
)
from voxlift.data_pipelines.preprocess.prepare import prepare_volume
from voxlift.data_pipelines.preprocess.settings import Preprocess, preset
from voxlift.data_pipelines.tables.manifest import Record
from voxlift.data_pipelines.tables.regions import Region
from voxlift.data_pipelines.volume import VolumeError

RNG = np.random.default_rng(0)
VALUES = {
    "ct": np.concatenate([np.full(500, -1000.0), RNG.integers(-100, 900, 500)]),
    "mri": np.concatenate([np.zeros(500), RNG.uniform(0, 900, 500)]),
    "signed": np.concatenate([np.zeros(500), RNG.normal(0, 2, 500)]),
    "mask": RNG.integers(0, 3, 1000).astype(float),
}


def probe(**values):
    sides = (100.0, 100.0, 100.0)
    return Probe(
        **{"kind": "mri", "spacing": (1.0,) * 3, "image_mm": sides, "content_mm": sides, "largest": 5.0}
        | values
    )


def write(path, voxels, spacing=(1.0, 2.0, 3.0)):
    nib.save(nib.Nifti1Image(voxels, np.diag([*spacing, 1.0])), path)
    return Record("s", (path,), 0, None, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_recognised_for_what_they_are(kind):
    assert recognise_kind(VALUES[kind]) == kind


def test_resampled_values_keep_their_kind():
    ringing = np.concatenate([VALUES["mri"], [-12.5]])
    assert recognise_kind(ringing) == "mri"
    assert recognise_kind(VALUES["ct"] + RNG.uniform(0, 0.5, 1000)) == "ct"


@pytest.mark.parametrize("budget", [64, 96, 128])
@pytest.mark.parametrize(
    ("extent", "native"),
    [((180, 220, 190), (1, 1, 1)), ((160, 230, 230), (5, 0.5, 0.5)), ((300, 20, 70), (0.7, 0.9, 2.1))],
)
def test_a_grid_covers_the_extent_within_the_budget_and_is_never_finer_than_the_files(extent, native, budget):
    spacing, shape = fit_budget(extent, native, budget)
    assert np.prod(shape) <= budget**3
    assert (np.array(shape) * spacing >= np.array(extent) - 0.01).all()
    assert (np.array(spacing) >= np.array(native)).all()
    assert all(side % 4 == 0 for side in shape)
    # Not coarser than needed: the next finer grid in steps of 8 voxels would exceed the budget.
    assert spacing == tuple(native) or np.prod(np.array(shape) + 8) > 0.97 * budget**3


def test_anisotropy_is_kept_up_to_two_and_thick_slices_are_not_merged():
    spacing, shape = fit_budget((160, 230, 230), (5, 0.5, 0.5), 64)
    assert spacing[0] < 5.5  # in-plane spacing is coarsened first, from 0.5 mm
    assert shape[0] == 32
    coarse, _ = fit_budget((300, 300, 300), (2, 1, 1), 64)
    assert coarse[0] / coarse[1] == pytest.approx(2, rel=0.02)


def test_content_is_cropped_to_where_much_of_the_image_is_empty():
    half = probe(content_mm=(50.0, 60.0, 50.0))
    decided = decide_preprocess([half] * 3, 64)
    assert decided.values["foreground_crop"]
    assert (np.array(decided.shape) * decided.spacing < 70).all()
    assert "antialias" not in decided.values  # the files' own spacing is enough
    full = decide_preprocess([probe()] * 3, 64)
    assert "foreground_crop" not in full.values
    assert full.values["antialias"]


def test_a_map_around_zero_keeps_its_sign_and_masks_their_thin_parts():
    signed = decide_preprocess([probe(kind="signed", largest=4.0)], 64)
    assert signed.preset == "none"
    low, high = signed.values["window_hu"]
    assert (low, high, signed.values["pad"]) == (-4, 4, 0)
    mask = decide_preprocess([probe(kind="mask")], 64)
    assert (mask.preset, mask.values["interpolation"], mask.values["antialias"]) == ("mask", "linear", True)
    assert "interpolation" not in decide_preprocess([probe(kind="mask")], 128).values


def test_images_that_look_like_another_kind_are_counted():
    decided = decide_preprocess([probe(kind="ct"), probe(), probe(), probe(kind="mask")], 64)
    assert (decided.kind, decided.others) == ("mri", {"ct": 1, "mask": 1})
    assert decide_preprocess([probe()], 64).others == {}


def test_images_on_disk_give_a_grid_that_holds_their_content(tmp_path):
    records = []
    for number in range(3):
        voxels = np.zeros((40, 30, 20), np.int16)
        voxels[10:24, 8 + number : 20, 5:15] = RNG.integers(400, 900, (14, 12 - number, 10))
        records.append(write(tmp_path / f"{number}.nii.gz", voxels))
    (tmp_path / "bad.nii.gz").write_bytes(b"junk")
    bad = replace(records[0], images=(tmp_path / "bad.nii.gz",))
    probes = probe_records([*records, bad], Preprocess(foreground_margin_mm=0.0))
    assert len(probes) == 3
    assert probes[0].kind == "mri"
    assert probes[0].spacing == pytest.approx((3, 2, 1))  # depth, height, width
    assert probes[0].content_mm == pytest.approx((30, 24, 14))
    decided = decide_preprocess(probes, 64)
    volume = prepare_volume(records[0].images, preset(decided.preset, **decided.values))
    assert volume.voxels.shape[:3] == decided.shape[::-1]
    inside = int((volume.voxels > volume.voxels.min()).sum())
    assert inside == 14 * 12 * 10
    with pytest.raises(VolumeError, match="bad"):
        probe_records([bad], Preprocess())


def test_masks_decide_the_box_where_records_have_them(tmp_path):
    record = write(tmp_path / "image.nii.gz", RNG.integers(0, 900, (40, 30, 20)).astype(np.int16))
    inside = np.zeros((40, 30, 20), np.uint8)
    inside[4:8, 10:14, 6:10] = 1
    write(tmp_path / "mask.nii.gz", inside)
    masked = replace(record, region=Region(mask=tmp_path / "mask.nii.gz"))
    (found,) = probe_records([masked], Preprocess(mask=("crop",), mask_margin_mm=0.0))
    assert found.content_mm == pytest.approx((12, 8, 4))
    decided = decide_preprocess([found], 64, has_region=True)
    assert decided.shape == (4, 4, 4)
    assert "foreground_crop" not in decided.values
