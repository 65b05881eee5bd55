"""Every option of every group composes into settings that pass the checks."""

from dataclasses import asdict, fields
from pathlib import Path

import pytest

from commands import compose_command
from voxlift.app.cli.train import read_settings
from voxlift.app.config import PreprocessSettings, SettingsError
from voxlift.data_pipelines.augment import PRESETS, Augment
from voxlift.data_pipelines.preprocess.settings import PRESETS as PREPROCESS_PRESETS
from voxlift.data_pipelines.preprocess.settings import Preprocess

CONF = Path(__file__).parents[2] / "conf"
NEEDED = {
    "manifest": ["data.table=labels.csv"],
    "medmnist3d": ["data.npz=a.npz"],
    "adrenal": ["data.npz=a.npz"],
    "soop_territory": ["data.table=labels.csv"],
    "soop_severity": ["data.table=labels.csv"],
    "soop_subgroups": ["data.table=labels.csv"],
    "soop_nihss": ["data.table=labels.csv"],
    "soop_mrs": ["data.table=labels.csv"],
    "lesymap_score": ["data.table=labels.csv"],
    "covariates": ["model.columns=[age]"],
    "slice2d_columns": ["model.columns=[age]"],
    "volume3d_columns": ["model.columns=[age]"],
    "embedding": ["data.embeddings=vectors.csv"],
    "pain_linear": ["data.table=labels.csv"],
    "gait": ["data.table=labels.csv"],
    "findings": ["data.task=signs"],
    "grades": ["data.task=winding"],
    "number": ["data.task=pitch"],
}
OPTIONS = [
    (group.name, path.stem)
    for group in sorted(CONF.iterdir())
    if group.is_dir() and group.name not in {"study", "cluster", "__pycache__"}  # not of a training
    for path in sorted(group.glob("*.yaml"))
]


def compose_settings(*overrides):
    return read_settings(compose_command("train", *overrides))


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes(group, option):
    if option == "mlflow":
        pytest.importorskip("mlflow", reason="the extra voxlift[mlflow] is not installed")
    settings = compose_settings(f"{group}={option}", *NEEDED.get(option, []))
    value = getattr(settings, group, None)
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", option)
    expected = {"default": "ct"}.get(option, option)  # of the phantom
    assert group in {"experiment", "logger", "optimizer"} or name == expected


@pytest.mark.parametrize("name", PRESETS)
def test_augmentation_files_hold_the_presets(name):
    values = dict(compose_settings(f"augment={name}").augment)
    assert values.pop("name") == name
    assert Augment(**values) == PRESETS[name]()
    assert set(values) == set(asdict(Augment()))


@pytest.mark.parametrize("name", PREPROCESS_PRESETS)
def test_preprocessing_files_hold_the_presets(name):
    values = asdict(compose_settings(f"preprocess={name}").preprocess)
    for key in ("name", "shape", "spacing", "budget"):
        del values[key]
    values["mask"] = values["mask"] or ()
    assert Preprocess(**values) == Preprocess(**PREPROCESS_PRESETS[name])


def test_every_preprocessing_setting_can_be_configured():
    known = {field.name for field in fields(PreprocessSettings)} | {"time_axis"}
    assert {field.name for field in fields(Preprocess)} <= known


def test_medmnist_has_its_own_preprocessing_unless_another_is_chosen():
    assert compose_settings("data=medmnist3d", "data.npz=a.npz").preprocess.name == "medmnist"
    chosen = compose_settings("data=medmnist3d", "data.npz=a.npz", "preprocess=mask")
    assert chosen.preprocess.name == "mask"


def test_tables_of_ones_own_get_the_grid_of_their_images_unless_another_is_chosen():
    table = ("data=manifest", "data.table=labels.csv")
    assert compose_settings(*table).preprocess == PreprocessSettings(name="auto")
    kept = compose_settings(*table, "preprocess.prefer=qform", "preprocess.budget=96").preprocess
    assert kept == PreprocessSettings(name="auto", prefer="qform", budget=96)
    explicit = compose_settings(*table, "preprocess=ct").preprocess
    assert explicit == compose_settings().preprocess  # the phantom keeps the grid it had
    assert compose_settings(*table, "preprocess.spacing=[3,3,3]").preprocess.name == "ct"
    assert compose_settings(*table, "preprocess=mri").preprocess.name == "mri"


@pytest.mark.parametrize("key", ["preprocess.spacing=[1,1,1]", "preprocess.budget=8", "preprocess.pad=0"])
def test_auto_refuses_what_it_decides(key):
    with pytest.raises(SettingsError, match=key.partition("=")[0]):
        compose_settings("preprocess=auto", key)
