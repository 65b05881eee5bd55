"""A sweep over seeds on a user's own two-channel table, from the command line to predictions."""

import csv

import nibabel as nib
import numpy as np

from commands import run_python
from voxlift.app.files import read_rows
from voxlift.app.runs.configuration import load_settings
from voxlift.app.runs.folder import RunFolder


def write_subjects(folder):
    rng = np.random.default_rng(0)
    with (folder / "labels.tsv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["participant_id", "t1", "flair", "diagnosis"])
        for index in range(18):
            names = [f"{kind} {index}.nii.gz" for kind in ("t1", "flair")]
            for name in names:
                voxels = rng.integers(0, 100, (9, 13, 11)).astype(np.int16)
                nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 2.0, 1.0])), folder / name)
            writer.writerow([f"s{index}", *names, "n/a" if index > 15 else ("a", "b")[index % 2]])


def test_a_sweep_over_seeds_trains_on_two_channels(tmp_path):
    write_subjects(tmp_path)
    columns = [
        "data.image_columns=[t1,flair]",
        "data.label_column=diagnosis",
        "data.subject_column=participant_id",
    ]
    small = [
        "model.filters=[2,3,4]",
        "trainer.epochs=1",
        "precision=float32",
        "logger=none",
        "preprocess=none",
    ]
    table = ["data=manifest", "data.table=labels.tsv", *columns]
    answer = run_python(
        "-m", "voxlift.app.cli.train", "-m", *table, *small, "seed=0,1", cwd=tmp_path, timeout=300
    )
    assert answer.returncode == 0, answer.stderr
    assert "label missing (2)" in answer.stdout
    runs = [RunFolder(path) for path in sorted((tmp_path / "runs").iterdir()) if path.is_dir()]
    assert [load_settings(run).seed for run in runs] == [0, 1]
    for run in runs:
        rows = read_rows(run.predictions)
        assert len(rows) == 16
        assert all(row["image"].count("|") == 1 for row in rows)
    assert answer.stdout.strip().splitlines()[-1] == f"Results in runs/{runs[1].path.name}"
