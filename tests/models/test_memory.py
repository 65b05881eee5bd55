"""The memory of a training step: counted by hand on small networks."""

import keras
from keras import layers

from voxlift.models.layers import TokenAttention3D
from voxlift.models.memory import TrainingMemory, training_memory

VOXELS = 5 * 7 * 11


def functional(*chain, channels=2):
    inputs = x = keras.Input((5, 7, 11, channels))
    for layer in chain:
        x = layer(x)
    return keras.Model(inputs, x)


def test_of_convolution_normalisation_and_relu_the_input_and_two_tensors_are_kept():
    model = functional(
        layers.Conv3D(3, 3, padding="same"), layers.BatchNormalization(), layers.Activation("relu")
    )
    kept = (2 + 3 + 3) * VOXELS  # the input for the kernel's gradient, the convolution's output, the ReLU's
    assert training_memory(model).activations == 4 * kept
    assert training_memory(model).transient == 4 * (3 + 3) * VOXELS


def test_views_additions_and_paddings_keep_no_tensor():
    inputs = keras.Input((5, 7, 11, 2))
    x = layers.Conv3D(2, 1)(inputs)
    y = layers.Add()([x, layers.Conv3D(2, 1)(inputs)])
    outputs = layers.Flatten()(layers.ZeroPadding3D(0)(y))
    assert (
        training_memory(keras.Model(inputs, outputs)).activations == 4 * 2 * VOXELS
    )  # the shared input, once


def test_a_tensor_that_two_gradients_need_is_kept_once():
    inputs = keras.Input((5, 7, 11, 2))
    shared = layers.Conv3D(3, 1, activation="relu")(inputs)
    outputs = layers.Concatenate()([layers.Conv3D(1, 1)(shared), layers.Conv3D(1, 1)(shared)])
    assert training_memory(keras.Model(inputs, outputs)).activations == 4 * (2 + 3) * VOXELS


def test_a_swish_keeps_its_input_and_dropout_a_mask_of_bytes():
    swish = functional(layers.Conv3D(2, 1), layers.Activation("swish"))
    assert training_memory(swish).activations == 4 * (2 + 2) * VOXELS
    dropout = functional(layers.Conv3D(2, 1), layers.Dropout(0.5))
    assert training_memory(dropout).activations == (4 * 2 + 2) * VOXELS


def test_of_frozen_layers_before_the_first_trained_one_nothing_is_kept():
    frozen = layers.Conv3D(5, 3, trainable=False)
    model = functional(frozen, layers.Activation("swish"), layers.Conv3D(3, 1), layers.Activation("relu"))
    assert training_memory(model).activations == 4 * (5 + 3) * (3 * 5 * 9)


def test_half_precision_halves_activations_and_leaves_weights():
    def network(policy):
        return functional(
            layers.Conv3D(3, 3, padding="same", dtype=policy), layers.Activation("relu", dtype=policy)
        )

    single, half = (training_memory(network(policy)) for policy in ("float32", "mixed_bfloat16"))
    assert half.activations * 2 == single.activations
    assert half.fixed == single.fixed


def test_gradients_and_slots_count_trainable_weights_only():
    model = functional(layers.BatchNormalization())
    found = training_memory(model, optimizer_slots=3)
    assert (found.weights, found.gradients, found.slots) == (4 * 8, 4 * 4, 4 * 12)


def test_the_largest_batch_fits_and_the_next_does_not():
    memory = TrainingMemory(100, 100, 200, activations=50, transient=10)
    for free in (0, 399, 400, 459, 460, 10_000):
        batch = memory.largest_batch(free)
        assert batch == 0 or memory.total(batch) <= free
        assert memory.total(batch + 1) > free


def test_attention_keeps_projections_and_a_weight_per_head_query_and_key():
    tokens = keras.Input((13, 6))
    for precision, width, weight in (("float32", 4, 4), ("mixed_bfloat16", 2, 4 + 2)):
        attention = TokenAttention3D(2, 5, planes=3, prefix=1, dtype=precision)
        model = keras.Model(tokens, attention(tokens, tokens))
        inner = 2 * (width * 4 * 13 * 5 + weight * 13 * 13)
        assert training_memory(model).activations == width * 13 * 6 + inner
