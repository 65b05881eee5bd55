"""`voxlift-compare -m`: each job of a sweep is a comparison of its own, under any launcher."""

import json

import pytest

from commands import run_python
from tiny import TINY

SHORT = [*TINY, "data.subjects=24", "trainer.epochs=1", "logger=none"]
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


def compare(*arguments, cwd):
    return run_python("-m", "voxlift.app.cli.compare", *arguments, cwd=cwd, timeout=900)


@pytest.mark.parametrize("launcher", [[], JOBLIB])
def test_a_sweep_whose_job_is_refused_ends_with_its_status(launcher, tmp_path):
    answer = compare("-m", "models=[volume3d,nonsense],[slice2d,nonsense]", *launcher, cwd=tmp_path)
    assert answer.returncode == 2
    assert "models: nonsense is not known" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not list((tmp_path / "runs").glob("compare-*"))  # Hydra notes the sweep there


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [[], JOBLIB])
def test_every_job_of_a_sweep_leaves_its_comparison(launcher, tmp_path):
    compare("models=[volume3d,acs]", *SHORT, cwd=tmp_path)  # writes the phantom, and one of the comparisons
    answer = compare("-m", "models=[volume3d,acs],[slice2d,volume3d]", *SHORT, *launcher, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    found = [
        json.loads(path.read_text(encoding="utf-8")) for path in (tmp_path / "runs").glob("*/comparison.json")
    ]
    assert sorted(sorted(one["models"]) for one in found) == [["acs", "volume3d"], ["slice2d", "volume3d"]]
    # The second comparison's volume3d is the first's: the same settings, trained once.
    assert len(list((tmp_path / "runs").glob("*/runs/volume3d-seed0/metrics.json"))) == 1
