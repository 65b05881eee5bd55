import logging
from pathlib import Path

import numpy as np

from voxlift.app.data.cohort import Cohort
from voxlift.app.runs.cohort import warn_about_images
from voxlift.data_pipelines.cache.format import VolumeSummary
from voxlift.data_pipelines.preprocess.settings import Preprocess
from voxlift.data_pipelines.tables.manifest import Record


def test_only_training_volumes_are_checked(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("voxlift"), "propagate", True)
    shape, splits = (3, 5, 7, 1), ("test", "train", "train", "val")
    files = tuple(tmp_path / f"{index}.float16" for index in range(4))
    for index, file in enumerate(files):
        (np.arange(105) % 2 * (index == 1)).astype(np.float16).tofile(file)
    records = tuple(Record(f"s{index}", (Path("x"),), index % 2, None, index) for index in range(4))
    settings = Preprocess(spacing=(1.0, 1.0, 1.0), shape=(3, 5, 7), window_hu=(0.0, 1.0))
    cohort = Cohort(records, ("a", "b"), splits, files, shape, "float16", settings)
    warn_about_images(cohort, [VolumeSummary((1.0, 1.0, 1.0), (3, 5, 7), "RAS", ())] * 2)
    (warning,) = caplog.records
    assert warning.getMessage().startswith("1 of 2 ")
