"""Operations agree with TensorFlow's profiler, parameters with Keras, and both with arithmetic by hand."""

import keras
import numpy as np
import pytest
from keras import layers

from voxlift.models.baselines import build_baseline
from voxlift.models.complexity import layer_costs, model_cost
from voxlift.models.flops import layer_flops
from voxlift.models.layers import ACSConv3D, DepthwiseConv3D, FusedBatchNormalization, SeparableConv3D
from voxlift.models.slice_model import wrap_slices


def profile(model, shape):
    """Operations of one forward pass by TensorFlow's own profiler."""
    import tensorflow as tf

    graph = tf.function(lambda x: model(x, training=False)).get_concrete_function(tf.TensorSpec((1, *shape)))
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    return tf.compat.v1.profiler.profile(graph=graph.graph, options=options).total_float_ops


def volume_cnn():
    return keras.Sequential(
        [
            keras.Input((9, 12, 10, 2)),
            layers.Conv3D(8, (3, 3, 5), padding="same", use_bias=False),
            FusedBatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling3D(2),
            layers.Conv3D(16, 3, strides=2, activation="relu"),
            layers.GlobalAveragePooling3D(),
            layers.Dense(3),
        ]
    )


def own_layers():
    inputs = keras.Input((8, 11, 10, 6))
    x = ACSConv3D(12, 3, strides=2, padding="same")(inputs)
    x = SeparableConv3D(16, 3, padding="same", depth_multiplier=2)(x)
    x = DepthwiseConv3D((3, 5, 5), padding="same")(x)
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling3D()(x)))


# TensorFlow registers no count for its fused normalisation nor for the forward pass of ReLU.
NOT_PROFILED = {"FusedBatchNormalization", "Activation", "ReLU"}
NETWORKS = {
    "cnn": lambda: build_baseline("cnn", input_shape=(24, 28, 2), classes=3, filters=(8, 16, 32)),
    "resnet": lambda: build_baseline("resnet", input_shape=(24, 28, 1), classes=2),
    "tutorial": lambda: build_baseline("tutorial", input_shape=(32, 32, 3), classes=10),
    "volume": volume_cnn,
    "own layers": own_layers,
    "MobileNetV3Small": lambda: build_baseline("MobileNetV3Small", input_shape=(64, 64, 1), classes=2),
    "slices": lambda: wrap_slices(build_baseline("cnn", input_shape=(24, 28, 1), classes=3), depth=5),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_operations_agree_with_the_profiler_within_2_percent_and_parameters_with_keras(name):
    model = NETWORKS[name]()
    # It counts the operations of hard activations and of the normalisation of Keras.
    ignored = set() if name == "MobileNetV3Small" else NOT_PROFILED
    counted = sum(cost.flops for cost in layer_costs(model) if cost.kind not in ignored)
    assert counted == pytest.approx(profile(model, model.input_shape[1:]), rel=0.02)
    cost = model_cost(model)
    assert cost.parameters == model.count_params()
    assert cost.trainable_parameters == sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def test_a_shared_layer_counts_operations_twice_and_parameters_once():
    inputs = keras.Input((7, 5, 3))
    shared = layers.Conv2D(3, 3, padding="same")
    model = keras.Model(inputs, shared(shared(inputs)))
    costs = [cost for cost in layer_costs(model) if cost.kind == "Conv2D"]
    assert [cost.parameters for cost in costs] == [84, 0]
    assert [cost.flops for cost in costs] == [7 * 5 * 3 * (2 * 27 + 1)] * 2


def test_nested_layers_are_named_by_path_and_unknown_sizes_are_refused():
    inner = keras.Sequential([keras.Input((None, None, 1)), layers.Conv2D(2, 3, name="deep")], name="inner")
    inputs = keras.Input((None, None, 1))
    model = keras.Model(inputs, layers.MaxPooling2D(2)(inner(inputs)), name="outer")
    costs = {cost.name: cost for cost in layer_costs(model, (9, 7, 1))}
    assert costs["inner/deep"].output_shape == (1, 7, 5, 2)
    assert costs["inner/deep"].activation_bytes == 4 * 7 * 5 * 2
    with pytest.raises(ValueError, match=r"outer.*input_shape"):
        layer_costs(model)


def test_a_layer_with_an_output_of_unknown_size_is_named():
    inputs = keras.Input((6, 7, 3))
    layer = layers.EinsumDense("bhwc,cd->bhwd", output_shape=(None, None, 5), name="mix")
    with pytest.raises(ValueError, match=r"mix.*\(1, None, None, 5\)"):
        layer_costs(keras.Model(inputs, layer(inputs)))


def test_half_precision_halves_activations():
    inputs = keras.Input((5, 7, 11, 1))
    outputs = layers.Conv3D(2, 3, dtype="mixed_bfloat16")(inputs)
    (cost,) = [cost for cost in layer_costs(keras.Model(inputs, outputs)) if cost.kind == "Conv3D"]
    assert cost.activations == 3 * 5 * 9 * 2
    assert cost.activation_bytes == 2 * cost.activations


def test_a_subclassed_model_is_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match=r"own.*Functional"):
        layer_costs(Own(name="own"))


def test_a_layer_is_counted_without_being_built():
    config = {"kernel_size": (3, 3, 3), "groups": 2, "use_bias": False}
    assert layer_flops("Conv3D", config, [(1, 5, 7, 11, 4)], (1, 5, 7, 11, 6)) == 2 * 385 * 6 * 27 * 2
    assert layer_flops("Conv2DTranspose", {"kernel_size": 2}, [(1, 5, 7, 4)], (1, 10, 14, 3)) == (
        2 * 35 * 4 * 4 * 3 + 420
    )
    assert layer_flops("Dropout", {}, [(1, 5)], (1, 5)) == 0


@keras.saving.register_keras_serializable("test_complexity")
class ScaleByMean(layers.Layer):
    """A user's layer that states no output shape, so that Keras traces its call."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, inputs):
        axes = tuple(range(1, len(inputs.shape) - 1))
        return inputs * keras.ops.mean(inputs, axis=axes, keepdims=True) * self.scale


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_layers_that_state_no_output_shape_are_counted_in_each_precision(policy):
    inputs = keras.Input((4, 6, 5, 3))
    outputs = ScaleByMean(name="scaled", dtype=policy)(inputs)
    model = keras.Model(inputs, layers.Dense(2, dtype=policy)(outputs))
    saved = model.to_json()
    costs = {cost.name: cost for cost in layer_costs(model)}
    assert costs["scaled"].output_shape == (1, 4, 6, 5, 3)
    assert costs["scaled"].parameters == 3
    assert model.to_json() == saved
