from pathlib import Path

import pytest

from voxlift.data_pipelines.audit.facts import Facts
from voxlift.data_pipelines.audit.suggest import suggest_preprocess, suggest_shape, suggest_spacing

ABSENT = Facts(Path("absent.nii"), error="no such file")


def facts(**values):
    return Facts(Path("a.nii"), shape=(11, 7, 5), **values)


def test_suggestions_keep_thin_slices_and_hold_the_median_extent():
    files = [facts(spacing=(depth, 1.0, 1.0)) for depth in (2.0, *[5.0] * 10)]
    assert suggest_spacing(files) == (5.0, 1.0, 1.0)
    assert suggest_spacing(files[:4]) == (2.9, 1.0, 1.0)
    assert suggest_shape(files, (5.0, 1.0, 1.0)) == (16, 8, 8)
    assert suggest_spacing([ABSENT]) is None


@pytest.mark.parametrize(
    ("low", "high", "mean", "expected"),
    [
        (0.0, 1.0, 0.01, "mask"),
        (0.0, 2.0, 0.1, "mask"),
        (-1024.0, 1800.0, -500.0, "ct"),
        (0.0, 900.0, 150.0, "mri"),
        (-3.0, 6.0, 0.0, "mri"),
        (0.0, 1.0, 0.4, "mri"),  # an image that somebody scaled, not a mask
    ],
)
def test_the_preprocessing_follows_the_values(low, high, mean, expected):
    files = [facts(minimum=low, maximum=high, mean=mean) for _ in range(5)]
    assert suggest_preprocess([ABSENT, *files]) == expected


def test_an_empty_mask_among_masks_changes_nothing_and_no_file_suggests_nothing():
    masks = [facts(minimum=0.0, maximum=1.0, mean=0.01) for _ in range(5)]
    assert suggest_preprocess([*masks, facts()]) == "mask"
    assert suggest_preprocess([ABSENT]) is None
