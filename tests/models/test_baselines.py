"""Baselines end in float32 logits, take every setting of theirs, and refuse what cannot be built."""

import keras
import numpy as np
import pytest

from voxlift.models.backend import value_and_gradients
from voxlift.models.baselines import build_baseline, explain_unknown_baseline
from voxlift.models.heads import head_layer
from voxlift.models.hub import ARCHITECTURES
from voxlift.models.loading import application_names
from voxlift.models.slice_model import wrap_slices

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPE = (20, 24, 2)  # height, width, channels


@pytest.fixture(name="mixed")
def mixed_fixture():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def assert_gives_logits(model, classes, shape=SHAPE):
    assert model.input_shape == (None, *shape)
    assert model.output_shape == (None, classes)
    outputs = model(np.random.default_rng(0).normal(size=(2, *shape)).astype("float32"))
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    assert model.layers[-1].name == "logits"
    assert model.layers[-1].activation is keras.activations.linear


@pytest.mark.usefixtures("mixed")
@pytest.mark.parametrize(("name", "classes"), [("cnn", 2), ("resnet", 5), ("tutorial", 3)])
def test_own_networks_give_float32_logits_under_mixed_precision(name, classes):
    model = build_baseline(name, input_shape=SHAPE, classes=classes)
    assert_gives_logits(model, classes)
    assert model.layers[1].compute_dtype == "bfloat16"


@pytest.mark.parametrize("filters", [(4, 5, 6), (4, 5, 6, 7), (2, 3, 4, 5, 6)])
def test_cnn_is_flat_with_one_convolution_normalisation_activation_per_stage(filters):
    model = build_baseline("cnn", input_shape=SHAPE, classes=2, filters=filters, activation="gelu")
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    pools = [layer for layer in model.layers if isinstance(layer, keras.layers.MaxPooling2D)]
    assert [layer.filters for layer in convolutions] == list(filters)
    assert [norm.momentum for norm in norms] == [0.9] * len(filters)
    assert len(pools) == len(filters) - 1
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)


def test_resnet_downsamples_once_per_stage_and_uses_every_weight():
    model = build_baseline("resnet", input_shape=SHAPE, classes=3, filters=(4, 6, 8), dropout=0.0)
    assert model.get_layer("features").input.shape[1:] == (5, 6, 8)
    assert sum(isinstance(layer, keras.layers.Add) for layer in model.layers) == 6
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in model.layers)


def test_tutorial_is_the_network_of_the_tutorial():
    model = build_baseline("tutorial", input_shape=(32, 32, 3), classes=10)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["Conv2D", "MaxPooling2D", "Conv2D", "MaxPooling2D", "Flatten", "Dense", "Dense"]
    assert model.count_params() == 896 + 18496 + 64 * 6 * 6 * 128 + 128 + 1290


@pytest.mark.parametrize("name", ["MobileNetV3Small", "EfficientNetB0"])
def test_an_application_takes_any_number_of_channels(name):
    shape = (32, 32, 1)
    model = build_baseline(name, input_shape=shape, classes=3)
    assert_gives_logits(model, 3, shape)
    if name == "MobileNetV3Small":  # it would scale photographs by default
        assert not any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers)


def test_the_applications_are_known_by_name():
    assert len(application_names()) >= 40
    assert {"ResNet50", "ConvNeXtTiny", "VGG16"} <= set(application_names())


@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV3Small"])  # with its scaling outside, and inside
def test_trained_weights_see_other_channels_and_ranges_as_the_grey_photographs_of_their_training(
    name, tmp_path
):
    donor = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(32, 40, 3))
    donor.save_weights(tmp_path / "donor.weights.h5")
    module = {"MobileNet": keras.applications.mobilenet, "MobileNetV3Small": keras.applications.mobilenet_v3}
    grey = np.random.default_rng(0).uniform(0, 1, (2, 32, 40, 1)).astype(np.float32)
    photograph = np.repeat(255 * grey, 3, axis=-1)
    wanted = donor(module[name].preprocess_input(photograph)).numpy()
    scale = np.abs(wanted).max()
    for channels, (low, high), is_clipped in ((1, (0.0, 1.0), False), (5, (-3.0, 3.0), True)):
        network = build_baseline(
            name,
            input_shape=(32, 40, channels),
            classes=2,
            weights=tmp_path / "donor.weights.h5",
            value_range=(low, high),
            is_clipped=is_clipped,
        )
        body = keras.Model(network.input, network.get_layer("features").input)
        slices = np.repeat(low + grey * (high - low), channels, axis=-1)
        np.testing.assert_allclose(body(slices).numpy() / scale, wanted / scale, atol=1e-5)
        if is_clipped:
            beyond, at_edge = np.where(slices > 0, 100.0, -100.0), np.where(slices > 0, high, low)
            two = [body(values.astype(np.float32)).numpy() / scale for values in (beyond, at_edge)]
            np.testing.assert_allclose(*two, atol=1e-5)


def test_weights_of_an_application_are_read_from_a_file(tmp_path):
    donor = keras.applications.MobileNetV3Small(
        include_top=False, weights=None, input_shape=(32, 32, 3), include_preprocessing=False
    )
    donor.save_weights(tmp_path / "donor.weights.h5")
    model = build_baseline(
        "MobileNetV3Small", input_shape=(32, 32, 3), classes=2, weights=tmp_path / "donor.weights.h5"
    )
    for ours, theirs in zip(model.get_weights()[:-2], donor.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_saved_network_and_a_run_folder_are_loaded_with_their_weights(tmp_path):
    network = build_baseline("cnn", input_shape=SHAPE, classes=3, filters=(2, 3, 4))
    network.save(tmp_path / "network.keras")
    wrap_slices(network, depth=5).save(tmp_path / "model.keras")
    for name in (tmp_path / "network.keras", tmp_path):
        again = build_baseline(str(name), input_shape=SHAPE, classes=3)
        assert_gives_logits(again, 3)
        for ours, theirs in zip(again.get_weights(), network.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match=r"model\.keras.*\(20, 24, 2\).*\(8, 8, 2\)"):
        build_baseline(str(tmp_path), input_shape=(8, 8, 2), classes=3)
    with pytest.raises(ValueError, match=r"model\.keras.*\(None, 3\).* 4 classes"):
        build_baseline(str(tmp_path), input_shape=SHAPE, classes=4)


@pytest.mark.parametrize(
    ("name", "settings", "named"),
    [
        ("resnett", {}, r"'resnett'.* resnet\?.*ResNet50"),
        ("mobilenetv2", {}, r"MobileNetV2\?"),
        ("nowhere.keras", {}, r"nowhere\.keras"),
        ("cnn", {"filters": (8, 8)}, r"3 to 5 .*\[8, 8\]"),
        ("tutorial", {"filters": (8,)}, r"2 .*\[8\]"),
        ("tutorial", {"dropout": 0.5}, "tutorial .*dropout.*filters"),
        ("ResNet50", {"filters": (8, 8, 8)}, "ResNet50 .*filters"),
        ("cnn", {"weights": "imagenet"}, "cnn .*weights"),
        ("cnn", {"head": "mean"}, "head .*pool.*flatten.*'mean'"),
        ("cnn", {"input_shape": (3, 9, 1)}, "2 times.*3 x 9"),
        ("tutorial", {"input_shape": (9, 11, 1)}, "10 x 10.*9 x 11"),
        ("VGG16", {"input_shape": (8, 8, 1)}, r"VGG16 .*\(8, 8, 1\)"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_setting(name, settings, named):
    with pytest.raises(ValueError, match=named):
        build_baseline(name, **({"input_shape": SHAPE, "classes": 2} | settings))


@pytest.mark.parametrize("activation", ["relu", "elu", "gelu"])
def test_the_cnn_pools_activated_values(activation):
    network = build_baseline("cnn", input_shape=(16, 20, 1), classes=2, activation=activation, dropout=0.0)
    voxels = np.random.default_rng(0).normal(size=(3, 16, 20, 1)).astype("float32")

    def plain(x):
        for stage in (1, 2, 3):
            for part in (f"stage{stage}_conv", f"stage{stage}_norm", f"stage{stage}_{activation}"):
                x = network.get_layer(part)(x)
            x = network.get_layer(f"pool{stage}")(x) if stage < 3 else x
        return network.get_layer("logits")(network.get_layer("features")(x))

    (value, gradients), (expected, of_plain) = (
        value_and_gradients(lambda x, f=f: keras.ops.sum(f(x)[:, 0] ** 2), voxels) for f in (network, plain)
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradients[0], of_plain[0], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("mixed")
@pytest.mark.parametrize("name", ["LCNet035", "VisionTransformerTiny16"])
def test_a_network_of_another_library_gives_float32_logits(name):
    pytest.importorskip("kimm")
    shape = (48, 64, 1)
    model = build_baseline(f"kimm:{name}", input_shape=shape, classes=3, dropout=0.3)
    assert_gives_logits(model, 3, shape)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["ResNetBackbone", "MobileNetImageClassifier"])
def test_a_network_of_keras_hub_gives_float32_logits(name):
    pytest.importorskip("keras_hub")
    shape = (32, 48, 1)
    assert_gives_logits(build_baseline(f"keras_hub:{name}", input_shape=shape, classes=3), 3, shape)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_preset_on_disk_gives_its_features_of_photographs_scaled_as_it_states(tmp_path):
    hub = pytest.importorskip("keras_hub")
    saved = hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 6],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(None, None, 3),
    )
    saved.save_to_preset(str(tmp_path))
    scale, offset = 1 / 50, -2.0
    hub.layers.ResNetImageConverter(scale=scale, offset=offset).save_to_preset(str(tmp_path))
    network = build_baseline(
        f"keras_hub:{tmp_path}", input_shape=(32, 48, 1), classes=3, value_range=(-1.0, 1.0)
    )
    assert_gives_logits(network, 3, (32, 48, 1))
    slices = np.random.default_rng(0).uniform(-1, 1, (2, 32, 48, 1)).astype(np.float32)
    photographs = np.repeat((slices + 1) / 2 * 255 * scale + offset, 3, axis=-1)
    pooled = np.mean(saved(photographs), axis=(1, 2))
    features = keras.Model(network.input, head_layer(network).input)(slices)
    np.testing.assert_allclose(features, pooled, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:LCNet035:UserWarning", "ignore::DeprecationWarning")
def test_weights_of_another_library_come_from_a_file_behind_its_own_scaling(tmp_path):
    kimm = pytest.importorskip("kimm")
    saved = kimm.models.LCNet035(
        include_top=False, include_preprocessing=False, weights=None, input_shape=(32, 40, 3)
    )
    saved.save_weights(tmp_path / "lcnet.weights.h5")
    network = build_baseline(
        "kimm:LCNet035", input_shape=(32, 40, 1), classes=2, weights=tmp_path / "lcnet.weights.h5"
    )
    slices = np.random.default_rng(0).uniform(0, 1, (2, 32, 40, 1)).astype(np.float32)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.sqrt([0.229, 0.224, 0.225])  # as kimm has them
    low, high = np.mean(-mean / deviation), np.mean((1 - mean) / deviation)
    scaled = slices * (high - low) + low
    pooled = np.mean(saved(np.repeat(scaled, 3, axis=-1)), axis=(1, 2))
    features = keras.Model(network.input, head_layer(network).input)(slices)
    np.testing.assert_allclose(features, pooled, rtol=1e-3, atol=1e-4)
    hub = pytest.importorskip("keras_hub")
    saved = hub.models.MobileNetBackbone(**ARCHITECTURES["MobileNet"], image_shape=(None, None, 3))
    saved.save_weights(tmp_path / "hub.weights.h5")
    network = build_baseline(
        "keras_hub:MobileNetBackbone",
        input_shape=(32, 40, 1),
        classes=2,
        weights=tmp_path / "hub.weights.h5",
    )
    pooled = np.mean(saved(np.repeat(slices, 3, axis=-1)), axis=(1, 2))  # its scale is unknown: 0 to 1
    features = keras.Model(network.input, head_layer(network).input)(slices)
    np.testing.assert_allclose(features, pooled, rtol=1e-3, atol=1e-4)
    for name in ("kimm:LCNet035", "keras_hub:ResNetBackbone"):  # neither is left with random weights
        with pytest.raises(ValueError, match="imagenet"):
            build_baseline(name, input_shape=(32, 40, 1), classes=2, weights="imagenet")


def test_a_name_of_another_library_that_cannot_be_built_is_reported():
    for name in ("kimm:RegNetZ", "kimm:", "keras_hub:ResNet", "keras_hub:GemmaBackbone"):
        library = name.partition(":")[0]
        assert library in explain_unknown_baseline(name)
        with pytest.raises(ValueError, match=library):
            build_baseline(name, input_shape=SHAPE, classes=2)
    with pytest.raises(ValueError, match="filters"):
        build_baseline("kimm:LCNet035", input_shape=SHAPE, classes=2, filters=(2, 3))
