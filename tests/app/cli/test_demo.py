"""The table and figure of the demo, from small runs."""

import io

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from voxlift.app.cli import demo
from voxlift.app.config import DataSettings, ModelSettings, PreprocessSettings, TrainSettings
from voxlift.app.files import write_rows
from voxlift.app.report.demo_figure import write_demo_figure
from voxlift.app.runs.configuration import save_settings
from voxlift.app.runs.folder import RunFolder

SHAPE = (8, 10, 12)


def model_of(auc):
    test = {"auc": auc, "balanced_accuracy": auc, "intervals": {"auc": [auc - 0.1, min(1.0, auc + 0.1)]}}
    return {"test": test, "cost": {"parameters": 23762, "seconds_per_epoch": 1.5}}


@pytest.fixture
def comparisons():
    return {task: {"models": {"slice2d": model_of(0.5), "volume3d": model_of(0.97)}} for task in demo.TASKS}


def test_the_table_has_a_row_for_each_task_and_model(comparisons):
    screen = Console(file=io.StringIO(), width=120)
    screen.print(demo.demo_table(comparisons))
    text = screen.file.getvalue()
    assert text.count("slice2d") == text.count("volume3d") == 2
    assert "0.970" in text
    assert "0.870 to 1.000" in text
    assert "23,762" in text


def test_the_picture_is_light_and_shows_the_volumes(comparisons, tmp_path):
    volumes = {name: np.full(SHAPE, value, "float32") for name, value in (("a", 0.2), ("b", 0.8))}
    path = write_demo_figure(tmp_path / "picture.png", volumes=volumes, comparisons=comparisons)
    assert path.stat().st_size < 150 * 1024
    pixels = imread(path)[..., :3]
    assert pixels.shape[1] > 1000
    greys = {round(float(grey), 1) for grey in np.unique(pixels[:, :600, 0])}
    assert {0.2, 1.0} <= greys  # the fainter volume, and paper
    assert (np.ptp(pixels[:, 800:], axis=-1) > 0.3).any()  # the scores are in colour


def test_examples_are_the_first_volume_of_each_class_as_the_run_prepared_it(tmp_path):
    settings = TrainSettings(
        data=DataSettings(
            name="phantom",
            task="nodule",
            subjects=4,
            folder=str(tmp_path / "data"),
            image_column="file",
            subject_column="participant_id",
        ),
        preprocess=PreprocessSettings(
            name="ct", spacing=[8.0, 6.0, 5.0], shape=list(SHAPE), window_hu=[-1000.0, 1000.0]
        ),
        model=ModelSettings(name="slice2d", kind="slice"),
    )
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    save_settings(settings, run)
    write_rows(tmp_path / "trials.csv", [{"model": "slice2d", "run": str(run.path)}])
    found = demo.example_volumes(tmp_path)
    assert list(found) == ["vessel", "nodule"]
    assert all(volume.shape == SHAPE and 0 <= volume.min() <= volume.max() <= 1 for volume in found.values())
