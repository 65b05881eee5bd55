"""The study of the architecture with a stand-in: what is trained, from what, and what is advised."""

import csv
import json

import pytest

from app.settings import ModelSettings, SettingsError, TrainSettings
from app.studies.architecture.points import is_same_value, lay_out_variants
from app.studies.overrides import format_override, value_of

STUDY = ["study=architecture", "study.seeds=[0,1]", "run_dir=out"]


def score(settings):
    """Flattening is bad; all else is alike."""
    return 0.1 if settings.model.head == "flatten" else 1.0


@pytest.fixture
def study_folder(stand_in, run_study):
    one = stand_in(score)
    return one, run_study(*STUDY)


def rows_of(folder):
    with (folder / "table.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def test_every_value_that_is_not_the_base_is_trained_on_every_seed(study_folder):
    one, folder = study_folder
    rows = rows_of(folder)
    assert set(rows) == {
        "base", "depth_policy preserve", "depth_policy slicewise", "depth_kernel 1", "depth_kernel 3",
        "depth_kernel 5", "filter_scale 0.5", "filter_scale 2.0", "init centre", "init mean", "init acs",
        "head flatten",
    }  # fmt: skip
    assert len(one.trained) == 2 * (len(rows) + 1)  # and the slice model
    assert one.trained[:2] == ["slices-seed0", "slices-seed1"]


def test_inflated_kernels_start_from_the_slice_model_of_their_own_seed(study_folder):
    _, folder = study_folder
    for seed in (0, 1):
        config = (folder / "runs" / f"init-mean-seed{seed}" / "config.yaml").read_text(encoding="utf-8")
        assert f"runs/slices-seed{seed}" in config
    assert "kind: slice" in (folder / "runs" / "slices-seed0" / "config.yaml").read_text(encoding="utf-8")


def test_the_cheapest_of_those_that_score_alike_is_advised(study_folder):
    _, folder = study_folder
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["recommendation"].startswith("Take model.filter_scale=0.5: validation AUC")
    assert "1 of the other 11 are shown to score less" in results["recommendation"]
    assert results["front"] == ["filter_scale-0-5"]
    assert any("head: flatten" in finding and "(worse)" in finding for finding in results["findings"])


def test_a_slice_model_has_no_depth_to_vary(stand_in, run_study):
    stand_in(score)
    with pytest.raises(SettingsError, match="expected a volume model"):
        run_study(*STUDY, "model=slice2d")


def test_what_cannot_be_composed_is_a_finding_and_the_rest_is_trained(stand_in, run_study):
    stand_in(score)
    folder = run_study(*STUDY, "study.vary.model.head=[pool,sphere]", "study.vary.model.init=null")
    findings = json.loads((folder / "results.json").read_text(encoding="utf-8"))["findings"]
    assert any("head sphere: model.head: expected one of pool, flatten" in one for one in findings)
    assert "head sphere" not in rows_of(folder)


def test_a_grid_has_every_combination():
    base = TrainSettings(model=ModelSettings(name="volume3d", kind="volume"))
    values = {"model.head": ("pool", "flatten"), "model.depth_kernel": (1, 3)}
    labels = [variant.label for variant in lay_out_variants(values, base, design="grid")]
    assert len(labels) == len(set(labels)) == 6
    assert labels[0] == "base"


def test_values_are_compared_by_what_they_mean():
    assert is_same_value(1, 1.0)
    assert not is_same_value("isotropic", "preserve")


def test_overrides_are_written_in_the_grammar_of_the_command_line():
    assert format_override("data.table", "a b.csv") == 'data.table="a b.csv"'
    assert format_override("model.filters", [1, 2]) == "model.filters=[1,2]"
    assert format_override("x", None) == "x=null"
    settings = TrainSettings(augment={"name": "light"})
    assert (value_of(settings, "augment"), value_of(settings, "model.dropout")) == ("light", 0.2)
    assert value_of(settings, "model.droput") is None
