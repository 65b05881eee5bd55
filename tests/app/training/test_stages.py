"""Train in 2D, inflate, fine-tune in 3D: what is carried over, what is refused, what a run leaves."""

import json
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from commands import compose_command
from tiny import TINY, places_in
from voxlift.app.cli.train import read_settings
from voxlift.app.config import ModelSettings, SettingsError, TrainSettings
from voxlift.app.files import read_rows, write_json, write_rows
from voxlift.app.runs.configuration import load_settings, save_settings
from voxlift.app.runs.folder import RunFolder
from voxlift.app.tasks.base import Head, find_task
from voxlift.app.training.baseline import check_baseline, refuse_seen_subjects
from voxlift.app.training.fit import recalibrate_lifted, slice_model_cost
from voxlift.app.training.fit_loop import scale_learning_rate
from voxlift.app.training.networks import build_networks, input_spec
from voxlift.app.training.stages import (
    Stage,
    build_stages,
    copy_from_comparison,
    slice_settings,
    trains_slices_first,
)
from voxlift.app.training.train import train
from voxlift.models.baselines import build_baseline
from voxlift.models.layers import ACSConv3D
from voxlift.models.slice_model import wrap_slices

# Keras's own conversion of a TensorFlow variable to numpy raises it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPE = (6, 8, 10, 1)  # [D, H, W, C]
RNG = np.random.default_rng(0)


def cohort(classes=("a", "b", "c"), shape=SHAPE, images=(), splits=()):
    records = tuple(SimpleNamespace(subject=Path(image).stem, images=(Path(image),)) for image in images)
    preprocess = SimpleNamespace(spacing=(1.0, 1.0, 1.0))
    return SimpleNamespace(
        shape=shape,
        classes=classes,
        preprocess=preprocess,
        records=records,
        splits=tuple(splits),
        task=find_task("classes"),
        head=lambda: Head(len(classes)),
        columns=None,
    )


def trained_network():
    """A 2D network none of whose weights stands at its initial value."""
    network = build_baseline("cnn", input_shape=(8, 10, 1), classes=3, filters=(4, 5, 6))
    network.set_weights([RNG.uniform(0.2, 1.0, weight.shape) for weight in network.get_weights()])
    return network


@pytest.fixture
def slice_run(tmp_path):
    network = trained_network()
    settings = TrainSettings(model=ModelSettings(name="slice2d", kind="slice"))
    settings.data.name = settings.preprocess.name = "none"
    settings.data.classes = ["a", "b", "c"]
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    save_settings(settings, run)
    write_json(run.metrics, {})
    wrap_slices(network, depth=6).save(run.model)
    return SimpleNamespace(run=run, network=network, baseline=str(run.path))


def volume_model(baseline, **settings):
    return ModelSettings(name="volume3d", kind="volume", baseline=baseline, **settings)


def composed(*overrides):
    return read_settings(compose_command("train", *overrides))


@pytest.mark.parametrize("init", ["centre", "mean"])
def test_a_lift_of_a_slice_run_starts_from_its_trained_weights_the_head_included(init, slice_run):
    lifted = build_networks(volume_model(slice_run.baseline, init=init), input_spec(cohort())).trained
    for layer in slice_run.network.layers:
        weights, ours = layer.get_weights(), lifted.get_layer(layer.name).get_weights()
        if layer.name.endswith("_conv"):
            taps = [np.zeros_like(weights[0]), weights[0], np.zeros_like(weights[0])]
            expected = np.stack(taps if init == "centre" else [weights[0] / 3] * 3)
            np.testing.assert_allclose(ours[0], expected, rtol=1e-6)
        else:
            for weight, received in zip(weights, ours, strict=True):
                np.testing.assert_array_equal(received, weight)


def test_centre_and_preserve_start_as_the_mean_over_slices_of_the_slice_models_logits(slice_run):
    model = volume_model(slice_run.baseline, init="centre", depth_policy="preserve")
    lifted = build_networks(model, input_spec(cohort())).volume
    volumes = RNG.normal(size=(2, *SHAPE)).astype("float32")
    logits = np.mean([slice_run.network(volumes[:, k]) for k in range(SHAPE[0])], axis=0)
    np.testing.assert_allclose(lifted(volumes), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("classes", [("a", "b"), ("a", "c", "b")])
def test_other_classes_get_a_new_head_and_keep_the_rest(classes, slice_run):
    model = volume_model(slice_run.baseline, init="centre")
    lifted = build_networks(model, input_spec(cohort(classes=classes))).trained
    assert lifted.output_shape == (None, len(classes))
    old = slice_run.network.get_layer("logits").get_weights()[0]
    new = next(layer for layer in reversed(lifted.layers) if layer.weights).get_weights()[0]
    assert new.shape != old.shape or not np.allclose(new, old)
    kernel = slice_run.network.get_layer("stage2_conv").get_weights()[0]
    np.testing.assert_array_equal(lifted.get_layer("stage2_conv").get_weights()[0][1], kernel)


def test_a_users_own_network_is_fitted_to_the_data_and_gives_logits(tmp_path):
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, name="first")(inputs)
    outputs = keras.layers.Dense(3, activation="softmax", name="answer")(
        keras.layers.GlobalAveragePooling2D()(x)
    )
    keras.Model(inputs, outputs).save(tmp_path / "mine.keras")
    lifted = build_networks(volume_model(str(tmp_path / "mine.keras")), input_spec(cohort())).trained
    assert lifted.input_shape == (None, *SHAPE)
    assert lifted.get_layer("answer").activation is keras.activations.linear
    assert lifted.output_shape == (None, 3)


def test_the_plan_is_made_before_the_slice_model_is_trained_and_built_with_what_it_learned():
    settings = TrainSettings(model=volume_model("cnn", init="centre", depth_policy="preserve", pretrain=True))
    settings.model.filters = [4, 5, 6]
    assert trains_slices_first(settings.model)
    first, second = build_stages(settings, input_spec(cohort()))
    network = first.take_networks().trained
    network.set_weights([RNG.uniform(0.2, 1.0, weight.shape) for weight in network.get_weights()])
    lifted = second.take_networks().trained
    kernel = network.get_layer("stage3_conv").get_weights()[0]
    np.testing.assert_array_equal(lifted.get_layer("stage3_conv").get_weights()[0][1], kernel)
    np.testing.assert_array_equal(
        lifted.get_layer("logits").get_weights()[0], network.get_layer("logits").get_weights()[0]
    )


def test_the_slice_model_shares_every_setting_that_is_not_its_kind():
    settings = composed("experiment=inflated", "optimizer.learning_rate=0.004", "model.filters=[4,6,8]")
    first = slice_settings(settings)
    assert (settings.model.name, settings.model.kind) == ("inflated", "volume")
    assert (first.model.name, first.model.kind, first.model.filters) == ("slice2d", "slice", [4, 6, 8])
    assert not trains_slices_first(first.model)
    assert scale_learning_rate(settings).learning_rate == pytest.approx(0.001)
    assert scale_learning_rate(first).learning_rate == pytest.approx(0.004)
    assert settings.optimizer.learning_rate == pytest.approx(0.004)


def test_a_named_slice_run_is_not_trained_again(slice_run):
    settings = composed("experiment=inflated", f"model.baseline={slice_run.baseline}")
    assert not trains_slices_first(settings.model)


@pytest.mark.parametrize(("init", "is_stale"), [("centre", False), ("mean", True), ("acs", True)])
def test_statistics_are_measured_anew_where_the_kernels_look_elsewhere(init, is_stale, slice_run):
    model = volume_model(slice_run.baseline, init=init)
    network = build_networks(model, input_spec(cohort())).trained
    before = network.get_layer("stage1_norm").get_weights()
    batches = [(RNG.normal(2, 3, size=(4, *SHAPE)).astype("float32"), None) for _ in range(3)]
    recalibrate_lifted(network, batches, model)
    after = network.get_layer("stage1_norm").get_weights()
    np.testing.assert_array_equal(after[0], before[0])
    assert np.allclose(after[2], before[2]) != is_stale


def test_random_kernels_on_top_of_trained_weights_are_refused(slice_run):
    with pytest.raises(SettingsError, match=r"model\.init=random"):
        check_baseline(volume_model(slice_run.baseline, init="random"))
    with pytest.raises(SettingsError, match=r"model\.init=random"):
        composed("model=inflated", "model.init=random")
    check_baseline(volume_model("cnn", init="random"))


def test_freezing_an_untrained_network_is_refused(slice_run):
    with pytest.raises(SettingsError, match=r"model.freeze_epochs=2: expected 0.*experiment=inflated"):
        composed("model=volume3d", "model.freeze_epochs=2")
    check_baseline(volume_model(slice_run.baseline, freeze_epochs=2))
    mine = {"_target_": "mine.with_weights"}
    check_baseline(volume_model("cnn", freeze_epochs=2, builder=mine))
    with pytest.raises(SettingsError, match=r"model\.init=random"):  # the body that is frozen
        check_baseline(volume_model("cnn", freeze_epochs=2, builder=mine, init="random"))
    inflated = ("model=inflated", "model.freeze_epochs=2")
    assert slice_settings(composed(*inflated)).model.freeze_epochs == 0
    own = slice_settings(composed(*inflated, "model.builder={_target_: mine.with_weights}"))
    assert own.model.freeze_epochs == 2  # the function gives them


def test_a_baseline_that_is_no_finished_slice_run_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="expected a finished slice run"):
        check_baseline(volume_model(str(tmp_path)))
    with pytest.raises(SettingsError, match=r"gone\.keras"):
        check_baseline(volume_model(str(tmp_path / "gone.keras")))


@pytest.mark.parametrize(
    ("earlier", "here", "seen"),
    [
        (["train", "val", "test"], ["train", "val", "test"], ""),
        (["train", "val", "test"], ["test", "train", "val"], "s0"),
        (["val", "train", "test"], ["test", "val", "train"], "s0, s1"),
    ],
)
def test_nobody_whom_the_slice_run_learned_from_may_be_held_out(earlier, here, seen, slice_run):
    images = [f"data/s{k}.nii.gz" for k in range(3)]
    rows = [
        {"subject": Path(image).stem, "image": image, "split": split}
        for image, split in zip(images, earlier, strict=True)
    ]
    write_rows(slice_run.run.splits, rows)
    model = volume_model(slice_run.baseline)
    ours = cohort(images=images, splits=here)
    if not seen:
        refuse_seen_subjects(model, ours.records, ours.splits)
        return
    with pytest.raises(SettingsError, match="held out here") as caught:
        refuse_seen_subjects(model, ours.records, ours.splits)
    assert ", ".join(f"{name}.nii" for name in seen.split(", ")) in str(caught.value)
    elsewhere = cohort(images=[f"other/s{k}.nii.gz" for k in range(3)], splits=here)
    refuse_seen_subjects(model, elsewhere.records, elsewhere.splits)


def test_acs_has_as_many_parameters_as_2d():
    settings = composed("model=acs", "model.filters=[4,6,8]")
    lifted = build_networks(settings.model, input_spec(cohort())).trained
    assert any(isinstance(layer, ACSConv3D) for layer in lifted.layers)
    flat = build_baseline("cnn", input_shape=(8, 10, 1), classes=3, filters=(4, 6, 8))
    assert lifted.count_params() == flat.count_params()


@pytest.fixture(scope="module")
def inflated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    overrides = [*TINY, "data.subjects=12", "trainer.epochs=1", *places_in(folder)]
    run = RunFolder(folder / "inflated")
    wanted = composed("experiment=inflated", "model.init=mean", *overrides, f"run_dir={run.path}")
    assert train(wanted) == 0
    return SimpleNamespace(run=run, overrides=overrides, folder=folder)


@pytest.mark.slow
def test_one_option_trains_the_slice_model_inflates_it_and_tunes(inflated):
    run, first = inflated.run, RunFolder(inflated.run.path / "slice2d")
    assert run.is_finished
    assert first.is_finished
    assert load_settings(first).model.kind == "slice"
    saved = load_settings(run).model
    assert (saved.name, saved.baseline, saved.pretrain) == ("inflated", "cnn", True)
    assert first.splits.read_text(encoding="utf-8") == run.splits.read_text(encoding="utf-8")
    cost = json.loads(run.metrics.read_text(encoding="utf-8"))["cost"]
    earlier = json.loads(first.metrics.read_text(encoding="utf-8"))["cost"]
    assert cost["pretrain_seconds"] == earlier["train_seconds"] > 0
    assert "statistics" in run.log.read_text(encoding="utf-8")
    assert len(read_rows(run.history)) == 1


@pytest.mark.slow
def test_a_finished_slice_run_is_inflated_and_another_split_of_its_subjects_refused(inflated, monkeypatch):
    first = RunFolder(inflated.run.path / "slice2d")
    trained = keras.saving.load_model(first.model, compile=False)
    kernel = next(weight.numpy() for weight in trained.weights if weight.path.endswith("stage1_conv/kernel"))
    seen = {}

    def look(network, *_):  # what stands in the network when training begins
        seen["kernel"] = network.get_layer("stage1_conv").get_weights()[0]

    monkeypatch.setattr("voxlift.app.training.fit.recalibrate_lifted", look)
    overrides = [*inflated.overrides, "model=volume3d", "model.init=centre", f"model.baseline={first.path}"]
    assert train(composed(*overrides, f"run_dir={inflated.folder}/tuned")) == 0
    np.testing.assert_array_equal(seen["kernel"][1], kernel)
    assert not (inflated.folder / "tuned" / "slice2d").exists()
    with pytest.raises(SettingsError, match="held out here"):
        train(composed(*overrides, "seed=1", f"run_dir={inflated.folder}/leaky"))
    assert not (inflated.folder / "leaky").exists()


def slice_stage():
    settings = slice_settings(composed("model=inflated"))
    return Stage(settings, input_spec(cohort()), is_last=False)


def test_the_slice_model_of_the_same_comparison_is_taken_and_no_other(tmp_path):
    beside, run = (RunFolder(tmp_path / "runs" / name) for name in ("slice2d-seed0", "inflated-seed0"))
    for one in (beside, run):
        one.path.mkdir(parents=True)
    save_settings(composed("model=slice2d"), beside)
    write_json(beside.metrics, {"cost": {"train_seconds": 7.0}})
    wanted, first = slice_settings(composed("model=inflated")), slice_stage().open_folder(run)
    assert not copy_from_comparison(first, wanted)  # in no comparison
    write_rows(tmp_path / "trials.csv", [{"model": "slice2d", "run": str(beside.path)}])
    assert not copy_from_comparison(first, slice_settings(composed("model=inflated", "seed=1")))
    assert copy_from_comparison(first, wanted)
    assert load_settings(first) == wanted
    assert slice_model_cost(run) == {"pretrain_seconds": 7.0}
    assert not copy_from_comparison(first, wanted)  # what has begun is not overwritten
