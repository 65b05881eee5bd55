from types import SimpleNamespace

import keras
import pytest

from commands import compose_command
from voxlift.app.cli.train import read_settings
from voxlift.app.config import DataSettings, ModelSettings, SettingsError, TrainSettings, check_settings
from voxlift.app.config.checks import find_model_problems
from voxlift.app.config.schema import STAGES
from voxlift.app.tasks.base import find_task
from voxlift.app.training.baseline import check_baseline, check_name
from voxlift.app.training.networks import build_networks, input_spec
from voxlift.app.training.train import train
from voxlift.models.baselines import build_baseline


def settings_of(**changes):
    return ModelSettings(name="volume3d", kind="volume", init="random", filters=[4, 6, 8], **changes)


def cohort_of(shape):
    preprocess = SimpleNamespace(spacing=(1.0, 1.0, 1.0))
    return SimpleNamespace(
        shape=shape,
        classes=("a", "b"),
        preprocess=preprocess,
        task=find_task("classes"),
        head=lambda: None,
        columns=None,
    )


def kernels_of(network):
    return [layer.kernel_size for layer in network.layers if isinstance(layer, keras.layers.Conv3D)]


def test_filters_are_scaled_and_kernels_deepened_as_the_settings_say():
    shape = (8, 12, 16, 1)
    plain = build_networks(settings_of(), input_spec(cohort_of(shape))).trained
    half = build_networks(settings_of(filter_scale=0.5), input_spec(cohort_of(shape))).trained
    deep = build_networks(settings_of(depth_kernel=5), input_spec(cohort_of(shape))).trained
    counts = [layer.filters for layer in half.layers if isinstance(layer, keras.layers.Conv3D)]
    assert counts == [2, 3, 4]
    assert kernels_of(plain) == [(3, 3, 3)] * 3
    assert kernels_of(deep) == [(5, 3, 3)] * 3
    assert deep.output_shape == plain.output_shape == (None, 2)


def test_a_flat_head_has_a_weight_for_every_place():
    network = build_networks(settings_of(head="flatten"), input_spec(cohort_of((8, 12, 16, 1)))).trained
    assert network.get_layer("logits").kernel.shape == (2 * 3 * 4 * 8, 2)
    pooled = build_networks(settings_of(), input_spec(cohort_of((8, 12, 16, 1)))).trained
    assert pooled.get_layer("logits").kernel.shape == (8, 2)


@pytest.mark.parametrize("baseline", list(STAGES))
def test_counts_of_filters_are_refused_at_the_door_that_the_baseline_refuses(baseline):
    for counts in ([4] * 1, [4] * 2, [4] * 3, [4] * 5, [4] * 6, [4, 0, 4]):
        try:
            build_baseline(baseline, input_shape=(32, 32, 1), classes=2, filters=counts)
        except ValueError:
            is_built = False
        else:
            is_built = True
        model = ModelSettings(name="v", kind="volume", baseline=baseline, filters=counts)
        assert (find_model_problems(model) == []) == is_built, counts


def test_what_another_network_cannot_follow_is_said_at_the_door():
    settings = TrainSettings(
        data=DataSettings(name="phantom", task="nodule"),
        model=ModelSettings(name="v", kind="volume", baseline="ResNet50", head="flatten", filter_scale=2.0),
    )
    with pytest.raises(SettingsError, match=r"model.head=flatten(.|\n)*model.filter_scale=2"):
        check_settings(settings)


def test_an_unknown_baseline_is_reported_before_volumes_are_prepared():
    with pytest.raises(SettingsError, match=r"model\.baseline=ResNet51: .*Did you mean ResNet50\?"):
        check_name(ModelSettings(name="v", kind="volume", baseline="ResNet51"))
    for name in ("cnn", "ResNet50"):
        check_name(ModelSettings(name="v", kind="volume", baseline=name))


def test_a_path_to_no_baseline_is_reported_with_the_run_that_is_there(tmp_path):
    run = tmp_path / "runs" / "slice2d-seed0"
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    mistyped = ModelSettings(
        name="v", kind="volume", baseline=str(run.with_name("slice2d-sed0")), init="centre"
    )
    with pytest.raises(SettingsError, match=r"expected a \.keras file or a run folder.*Did you mean .*seed0"):
        check_baseline(mistyped)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("model.filters=[4,8]", r"\[4, 8\]"),
        ("model.baseline=ResNet51", "ResNet51"),
        ("preprocess.shape=[8,3,3]", "model.baseline=cnn"),
        ("model.depth_policy={nowhere:isotropic}", "nowhere"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_before_an_image_is_read(setting, named, tmp_path):
    table = tmp_path / "labels.csv"
    rows = [f"sub-{number},{number}.nii.gz,{'ab'[number % 2]}" for number in range(16)]
    table.write_text("\n".join(["subject,file,label", *rows]), encoding="utf-8")
    for number in range(16):
        (tmp_path / f"{number}.nii.gz").write_bytes(b"no image: reading it would be another error")
    columns = ["data.image_column=file", "data.label_column=label", "data.subject_column=subject"]
    small = ["preprocess.shape=[8,12,16]", "preprocess.spacing=[8,5,4]"]
    settings = compose_command("train", "data=manifest", f"data.table={table}", *columns, *small, setting)
    with pytest.raises(ValueError, match=named):
        train(read_settings(settings))
