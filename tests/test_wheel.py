"""The built wheel, installed outside the checkout, trains two steps."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=True, **options)


@pytest.fixture
def source(tmp_path):
    """A copy of what a build reads: setuptools leaves a build folder where it works."""
    copy = tmp_path / "source"
    for name in ("src", "app", "conf", "data_pipelines", "models"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.mark.slow
def test_the_wheel_trains_without_the_checkout(tmp_path, source):
    wheels = tmp_path / "wheels"
    build = ("-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(source))
    run(sys.executable, *build, cwd=tmp_path)
    site = tmp_path / "site"
    install = ("-m", "pip", "install", "--no-deps", "--no-index", "--target", str(site))
    run(sys.executable, *install, *map(str, wheels.iterdir()))
    settings = [
        "data.subjects=16",
        "trainer.epochs=1",
        "trainer.batch_size=4",
        "run_dir=run",
        "splits.test=0.25",
    ]
    small = ["preprocess.shape=[8,12,16]", "preprocess.spacing=[8,5,4]", "model.filters=[4,6,8]"]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    answer = run(
        sys.executable, "-m", "voxlift.app.cli.train", *settings, *small, cwd=tmp_path, env=environment
    )
    assert answer.stdout.strip().splitlines()[-1] == "Results in run"
    where = run(
        sys.executable, "-c", "import voxlift; print(voxlift.__file__)", cwd=tmp_path, env=environment
    )
    assert where.stdout.startswith(str(site))
    assert (tmp_path / "run" / "metrics.json").exists()
    assert (tmp_path / "run" / "report.html").exists()
