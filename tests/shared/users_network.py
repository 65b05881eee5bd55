"""The module of a user for `model.builder`: a 2D network with a layer of its own, and its lift rule."""

MODULE = '''
import keras
import voxlift
from voxlift.models.lifting import keep_layer


@keras.saving.register_keras_serializable(package="mynets")
class Gain(keras.layers.Layer):
    """A trained factor for each channel."""

    def build(self, shape):
        self.factor = self.add_weight(shape=(shape[-1],), initializer="ones", name="factor")

    def call(self, values):
        return values * self.factor


voxlift.register_lift_rule(Gain, keep_layer)


def small_encoder(input_shape, classes, width, kernels):
    assert isinstance(input_shape, tuple) and isinstance(kernels, list)
    images = keras.Input(input_shape)
    x = images
    for size in kernels:
        x = Gain()(keras.layers.Conv2D(width, size, padding="same", activation="relu")(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, keras.layers.Dense(classes)(x), name="small_encoder")
'''
