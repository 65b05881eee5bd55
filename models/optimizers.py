"""AdamW whose step is one kernel per weight instead of a dozen small operations."""

from collections.abc import Sequence

import keras
from keras import ops

from voxlift.models.backend import Tensor, fused_adam, has_fused_adam


@keras.saving.register_keras_serializable(package="voxlift")
class FusedAdamW(keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` that runs through TensorFlow's fused Adam kernel.

    Arguments, slots, configuration and formula are those of the Keras optimiser; only rounding differs. With
    `amsgrad` and on other backends it is the Keras optimiser. An embedding's gradient, which TensorFlow hands
    over row by row, is summed per row before it is squared, as the formula has it and Keras has not.

    Source: Loshchilov and Hutter (2019), Decoupled Weight Decay Regularization, arXiv:1711.05101.
    """

    def update_step(self, gradient: Tensor, variable: Tensor, learning_rate: Tensor) -> None:
        """Decay one weight and update it and its two moments.

        Args:
            gradient: Of the weight, in its shape.
            variable: The weight.
            learning_rate: Scalar.
        """
        if not self._is_fused:
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        fused_adam(
            variable,
            gradient,
            first_moment=self._momentums[index].value,
            second_moment=self._velocities[index].value,
            learning_rate=learning_rate,
            decay=self.weight_decay if self.weight_decay and self._use_weight_decay(variable) else 0.0,
            betas=(self.beta_1, self.beta_2),
            powers=self._powers,
            epsilon=self.epsilon,
        )

    @property
    def _is_fused(self) -> bool:
        return has_fused_adam() and not self.amsgrad

    def _apply_weight_decay(self, variables: Sequence[keras.Variable]) -> None:
        if not self._is_fused:  # the fused step decays each weight itself
            super()._apply_weight_decay(variables)

    def _backend_update_step(
        self, grads: Sequence[Tensor], trainable_variables: Sequence[keras.Variable], learning_rate: Tensor
    ) -> None:
        # Once per step, not once per weight: a deep network has hundreds.
        step = ops.cast(self.iterations + 1, "float32")
        self._powers = (ops.power(self.beta_1, step), ops.power(self.beta_2, step))
        super()._backend_update_step(grads, trainable_variables, learning_rate)
