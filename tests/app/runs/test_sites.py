"""Sites in a training: the tested subjects, each site's score, and whether the site can be predicted."""

import json

import numpy as np
import pytest

from commands import call_command
from tiny import train_tiny
from voxlift.app.files import read_rows


@pytest.fixture(scope="module")
def left_out(tmp_path_factory):
    """A run whose test subjects are one site."""
    folder = tmp_path_factory.mktemp("sites")
    run = train_tiny(
        folder,
        "left",
        "model=volume3d",
        "model.filters=[4,4,4]",
        "data.subjects=48",
        "trainer.epochs=1",
        "splits.leave_out=site",
        "splits.fold=1",
        "evaluation.min_subjects=5",
        "preflight.enabled=false",
    )
    return folder, run


def test_one_site_is_tested_and_the_page_has_its_score(left_out):
    _, run = left_out
    sites = {row["subject"]: row["site"] for row in read_rows(run.subjects)}
    names = sorted(set(sites.values()))
    tested = {row["subject"] for row in read_rows(run.splits) if row["split"] == "test"}
    assert tested == {subject for subject, site in sites.items() if site == names[1]}
    metrics = json.loads(run.metrics.read_text())
    (group,) = metrics["subgroups"]["site"]["groups"]
    assert (group["group"], group["subjects"]) == (names[1], len(tested))
    assert group["auc"] == pytest.approx(metrics["test"]["auc"])


def test_score_and_features_are_compared_within_one_split(left_out):
    _, run = left_out
    found = json.loads(run.metrics.read_text())["sites"]
    assert found["column"] == "site"
    assert found["split"] != "test"  # it holds a single site
    assert len(found["sites"]) >= 2
    for name in ("score", "features"):
        assert 0 <= found[name]["interval"][0] <= found[name]["interval"][1] <= 1
        assert found[name]["can_be_told"] == (found[name]["interval"][0] > 0.5)
    assert f"{found['features']['auc']:.3f}" in run.report.read_text()


def test_a_site_stays_in_one_split(left_out):
    folder, _ = left_out
    table = next((folder / "data").glob("nodule-*/labels.csv"))
    lines = table.read_text().splitlines()
    rng = np.random.default_rng(0)
    rows = [lines[0] + ",clinic", *(f"{line},clinic{rng.integers(8)}" for line in lines[1:])]
    other = table.with_name("clinics.csv")
    other.write_text("\n".join(rows))
    run = train_tiny(
        folder, "kept", "data=manifest", f"data.table={other}", "data.image_column=file",
        "data.subject_column=participant_id", "data.subjects=null", "data.folder=data", "model=linear",
        "splits.by=clinic",
    )  # fmt: skip
    splits = {}
    clinic = {row["subject"]: row["clinic"] for row in read_rows(run.subjects)}
    for row in read_rows(run.splits):
        splits.setdefault(clinic[row["subject"]], set()).add(row["split"])
    assert all(len(own) == 1 for own in splits.values())
    assert {one for own in splits.values() for one in own} == {"train", "val", "test"}


def test_sites_and_other_folds_are_refused_together(capsys):
    assert call_command("train", "splits.leave_out=site", "splits.folds=3") == 2
    assert "splits.leave_out" in capsys.readouterr().err
