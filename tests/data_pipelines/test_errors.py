"""A misspelt name brings the existing name to mind, and nothing where none is similar."""

import pytest

from voxlift.data_pipelines.errors import closest_name

KEYS = ["seed", "run_dir", "trainer.epochs", "trainer.batch_size", "model.init", "output", "format"]


@pytest.mark.parametrize(
    ("name", "names", "expected"),
    [
        ("lable", ["image", "label"], "label"),
        ("aeg", ["age", "sex"], "age"),
        ("age", ["Age (y)", "image"], "Age (y)"),
        ("file", ["file name", "age"], "file name"),
        ("id", ["identifier", "age"], "identifier"),
        ("T1W", ["t1w", "flair"], "t1w"),
        ("trainer.epoch", KEYS, "trainer.epochs"),
        ("modle.init", KEYS, "model.init"),
        ("outptu", KEYS, "output"),
        ("eed", KEYS, "seed"),  # a missing first letter
        ("volume4d", ["slice2d", "volume3d"], "volume3d"),
        ("slice2d-sed0", ["slice2d-seed0", "volume3d-seed0"], "slice2d-seed0"),
        ("image", ["age", "label"], None),
        ("weight", ["age", "sex"], None),
        ("x", [], None),
        ("???", ["a", ""], None),
    ],
)
def test_the_most_similar_name_is_suggested(name, names, expected):
    assert closest_name(name, names) == expected
