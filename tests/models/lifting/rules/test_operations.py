"""Raw `keras.ops` calls keep their axes, or are reported as unsupported."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from lifts import image_network, lift_problems, prove
from voxlift.models.lifting import plan_lift

POLICIES = ("isotropic", "preserve", "slicewise")

OPERATIONS = {
    "mean": lambda x: ops.mean(x, axis=(1, 2)),
    "mean, negative axes": lambda x: ops.mean(x, axis=(-3, -2), keepdims=True),
    "channels away": lambda x: ops.max(x, axis=-1, keepdims=True),
    "channels away, positive": lambda x: ops.expand_dims(ops.var(x, axis=3), -1),
    "arithmetic": lambda x: ops.relu(2.0 * x + 1.0) - x * np.ones((1, 1, 4), "float32"),
    "slices": lambda x: x[:, ::2, ::2, 1:3],
    "slices, ellipsis": lambda x: x[..., :2],
    "softmax": lambda x: ops.softmax(x, axis=3),
    "concatenate": lambda x: ops.concatenate([x, x], axis=-1),
    "squeeze and excite": lambda x: x * ops.reshape(ops.mean(x, (1, 2)), (-1, 1, 1, 4)),
    "new axes": lambda x: x * ops.expand_dims(ops.expand_dims(ops.mean(x, (1, 2)), 1), 1),
    "transposed and back": lambda x: ops.transpose(ops.transpose(x, (0, 3, 1, 2)), (0, 2, 3, 1)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_raw_operation_keeps_its_axes(name):
    prove(image_network(lambda x: OPERATIONS[name](layers.Conv2D(4, 3)(x))), depth=9, tolerance=1e-12)


@pytest.mark.parametrize("policy", POLICIES)
def test_slices_of_a_map_keep_depth_or_follow_height(policy):
    keys = {
        "reversed rows": (slice(None), slice(None, None, -1)),
        "reversed plane": (slice(None), slice(None, None, -1), slice(None, None, -1)),
        "every other row": (slice(None), slice(None, None, 2)),
        "subsampled": (slice(None), slice(None, None, 2), slice(1, None, 2)),
    }
    for name, key in keys.items():
        network = image_network(lambda x, key=key: layers.Conv2D(4, 3, padding="same", name="conv")(x[key]))
        depth = prove(network, policy).get_layer("conv").output.shape[1]
        assert depth == (4 if name == "subsampled" and policy == "isotropic" else 8), name


@pytest.mark.parametrize("policy", POLICIES)
def test_channels_are_split_merged_and_removed(policy):
    def body(x):
        parts = ops.reshape(layers.Conv2D(6, 3, padding="same")(x), (-1, 10, 12, 3, 2))
        largest = ops.max(parts, axis=-1)  # maxout
        seen = ops.squeeze(layers.Conv2D(1, 3, padding="same")(largest), axis=-1)
        return layers.Conv2D(4, 3)(largest * ops.expand_dims(ops.sigmoid(seen), -1))

    prove(image_network(body), policy)


def test_an_operation_without_meaning_in_3d_is_reported():
    operations = {
        "Mean": lambda x: ops.mean(x, axis=1),
        "GetItem": lambda x: x[:, 0],
        "Flip": ops.flip,
        "Split": lambda x: ops.split(x, 2, axis=1)[0],
        "ExpandDims": lambda x: ops.expand_dims(x, 1),
    }
    for kind, operation in operations.items():
        assert [problem.kind for problem in lift_problems(image_network(operation), depth=5)] == [kind]


def test_the_plan_tells_how_a_sum_scales_with_depth_and_offers_the_mean():
    image = np.random.default_rng(0).uniform(0.5, 1, size=(2, 3, 4, 2)).astype("float32")
    scaled = {
        ops.sum: ("times 5", lambda flat: 5 * flat),
        ops.count_nonzero: ("times 5", lambda flat: 5 * flat),
        ops.nansum: ("times 5", lambda flat: 5 * flat),
        ops.logsumexp: ("plus log(5)", lambda flat: flat + np.log(5)),
        ops.prod: ("to the power of 5", lambda flat: flat**5),
    }
    for reduce, (words, scale) in scaled.items():
        for axis in ((1, 2), (-3, -2), None):
            network = image_network(lambda x, f=reduce, axis=axis: f(x, axis=axis), (3, 4, 2))
            plan = plan_lift(network, depth=5)
            (reason,) = plan.inexact.values()
            assert words in reason
            assert "ops.mean" in reason
            solid = np.asarray(plan.build()(np.repeat(image[:, None], 5, axis=1)))
            np.testing.assert_allclose(solid, scale(np.asarray(network(image))), rtol=1e-3)
            (reason,) = plan.replan(depth=None).inexact.values()
            assert words.replace("5", "D") in reason
            assert not plan.replan(depth=1).inexact
    mean = plan_lift(image_network(lambda x: ops.mean(x, axis=(1, 2))), depth=5)
    assert not mean.inexact


def test_a_constant_of_the_planes_size_keeps_that_size():
    weights = np.random.default_rng(0).normal(size=(6, 8, 1)).astype("float32")
    network = image_network(lambda x: layers.GlobalAveragePooling2D()(x * weights), (6, 8, 2))
    prove(network, depth=4)
    (problem,) = lift_problems(network, input_shape=(4, 6, 10))
    assert "(6, 8, 1)" in problem.reason
    assert "(None, 4, 6, 10, 2)" in problem.reason


def test_a_constant_lies_along_the_axes_that_it_has_in_2d():
    # Sides that equal the depth, or the channels: Keras takes the sum with such a vector for a bias.
    sides = {(8, 8, 1), (8, 8, 3), (8, 6, 4), (6, 8, 4), (8, 8, 8), (6, 4, 8), (5, 6, 8)}
    for height, width, channels in sorted(sides):
        for shape in (
            (height, 1, 1), (1, width, 1), (width, 1), (channels,), (1, 1, channels), (1, height, 1, 1),
            (1, 1, width, 1), (height, width, 1), (height, 1, channels), (1, width, channels), (1, 1, 1),
        ):  # fmt: skip
            constant = np.random.default_rng(0).normal(size=shape).astype("float32")
            for operate in (
                lambda x, c: x + c,
                lambda x, c: ops.add(c, x),
                lambda x, c: ops.add(x, ops.convert_to_tensor(c)),
                lambda x, c: ops.add(x1=x, x2=c),
                lambda x, c: x - c,
                lambda x, c: x * c,
                lambda x, c: ops.where(x > c, x, c),
            ):
                network = image_network(lambda x, f=operate, c=constant: f(x, c), (height, width, channels))
                image = np.random.default_rng(1).normal(size=(2, height, width, channels)).astype("float32")
                flat = np.asarray(network(image))
                network_3d = plan_lift(network, depth=8, depth_policy="preserve").build()
                solid = np.asarray(network_3d(np.repeat(image[:, None], 8, axis=1)))
                np.testing.assert_array_equal(solid, np.repeat(flat[:, None], 8, axis=1), err_msg=str(shape))


def test_a_constant_on_channels_that_are_moved_to_the_front_stays_on_them():
    for channels in (4, 8):
        constant = np.random.default_rng(0).normal(size=(channels, 1, 1)).astype("float32")

        def body(x, constant=constant):
            x = ops.transpose(x, (0, 3, 1, 2)) * constant + constant
            return ops.transpose(x, (0, 2, 3, 1))

        prove(image_network(body, (6, 8, channels)), depth=8)


def test_layers_without_a_rule_are_kept_for_tensors_without_depth():
    def body(x):
        x = layers.Reshape((2, 4))(layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3)(x)))
        return layers.Dense(2)(layers.Flatten()(x + layers.MultiHeadAttention(2, 4)(x, x)))

    lifted = prove(image_network(body, (6, 8, 2)), depth=5)
    assert any(isinstance(layer, keras.layers.MultiHeadAttention) for layer in lifted.layers)


def test_an_image_is_resized_to_a_multiple_of_its_size():
    def body(x, size, interpolation="bilinear"):
        pooled = layers.AveragePooling2D(2)(x)
        return x * ops.image.resize(layers.Conv2D(4, 1)(pooled), size, interpolation=interpolation)

    for interpolation, policy in (("bilinear", "isotropic"), ("nearest", "preserve")):
        network = image_network(lambda x, mode=interpolation: body(x, (10, 12), mode))
        assert prove(network, policy, depth=8).output_shape == (None, 8, 10, 12, 4)
    network = image_network(layers.Resizing(20, 12))
    assert prove(network, depth=8, tolerance=1e-5).output_shape == (None, 16, 20, 12, 4)
    (problem,) = lift_problems(image_network(lambda x: ops.image.resize(x, (15, 12))), depth=8)
    assert problem.kind == "Resize"
    assert "(15, 12)" in problem.reason
