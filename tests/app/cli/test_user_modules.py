"""A user's own modules and folders beside their data, of any name, do not disturb the commands."""

import os

import nibabel as nib
import numpy as np
import pytest

from commands import run_python

MODULES = (
    "app.py",
    "models.py",
    "conf/__init__.py",
    "conf/train.yaml",
    "data_pipelines.py",
    "numpy.py",
    "voxlift/notes.py",
)
SMALL = (
    "data=manifest",
    "data.table=labels.csv",
    "data.image_column=file",
    "data.subject_column=subject",
    "preprocess=none",
    "augment=none",
    "logger=none",
    "model.filters=[2,3,4]",
    "precision=float32",
    "preflight.enabled=false",
    "splits.val=0.25",
    "splits.test=0.25",
    "trainer.epochs=1",
)


@pytest.fixture
def folder(tmp_path):
    """A folder with modules that fail when they are imported, and a small data set."""
    for name in MODULES:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine: 1\n" if path.suffix == ".yaml" else "raise AssertionError('the user\\'s')\n")
    rng, rows = np.random.default_rng(0), ["file,label,subject"]
    for index in range(16):
        voxels = rng.normal(index % 2, 1, (9, 13, 11)).astype(np.float32)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / f"{index}.nii")
        rows.append(f"{index}.nii,{'ab'[index % 2]},s{index}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def run_command(name, *arguments, cwd):
    """Run a command as its installed script does: `-P` keeps the working directory off the import path."""
    return run_python("-P", "-m", f"voxlift.app.cli.{name}", *arguments, cwd=cwd, timeout=300)


def test_help_is_printed_beside_modules_of_the_same_names(folder):
    for start in (("-P", "-m"), ("-m",)):
        (folder / "numpy.py").unlink(missing_ok=start == ("-m",))  # without -P a user's numpy is the user's
        done = run_python(*start, "voxlift.app.cli.train", "--help", cwd=folder)
        assert done.returncode == 0, done.stderr
        assert "voxlift-train" in done.stdout


@pytest.mark.slow
def test_a_comparison_trains_its_models_beside_modules_of_the_same_names(folder):
    done = run_command("compare", *SMALL, "models=[slice2d,volume3d]", "run_dir=run", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "run" / "report.html").exists()


def test_an_import_path_with_the_working_directory_does_no_harm(folder):
    (folder / "numpy.py").unlink()
    path = os.pathsep.join([".", os.environ.get("PYTHONPATH", "")])
    done = run_python(
        "-P", "-m", "voxlift.app.cli.audit", *SMALL[:4], "output=out", cwd=folder, PYTHONPATH=path
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "out" / "audit.json").exists()
