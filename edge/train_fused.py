"""Batch norms of a training as one operation each, where the backend has it.

Keras makes a batch norm of a dozen operations, each a pass over memory, and takes bfloat16 to float32 and back; on processors they are
half of a step's time. TensorFlow's own kernel passes twice. Other backends train with Keras' operations.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

from edge.train_pupil import meanwhile
from edge.zoo_writer import Model, Tensor, keras_package


def fused_norms(*networks: Model | None) -> AbstractContextManager[None]:
    """The batch norms of these networks fused for a while, where TensorFlow trains them; what was traced before keeps its operations."""
    if keras_package().backend.backend() != "tensorflow":
        return nullcontext()
    layers = [layer for network in networks if network is not None for layer in network.layers]
    return meanwhile([layer for layer in layers if _can_fuse(layer)], "__class__", _fused_class())


def _can_fuse(layer: Any) -> bool:
    """Whether the layer is Keras' batch norm of the last axis of vectors or pictures, with all its weights, and nothing unusual in it."""
    if type(layer) is not keras_package().layers.BatchNormalization or isinstance(layer.input, list):  # behind a mask it has two inputs
        return False
    rank = len(layer.input.shape)
    is_usual = not (getattr(layer, "renorm", False) or getattr(layer, "synchronized", False))  # which older versions of Keras lack
    types = layer.variable_dtype == "float32" and layer.compute_dtype in ("float32", "bfloat16", "float16")
    return bool(rank in (2, 4) and layer.axis in (-1, rank - 1) and layer.scale and layer.center and is_usual and types)


@cache
def _fused_class() -> type:
    """A batch norm whose call is TensorFlow's kernel."""
    import tensorflow as tf

    class Fused(keras_package().layers.BatchNormalization):  # type: ignore[misc]
        def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None) -> Tensor:
            measured = bool(training) and self.trainable
            given = [[], []] if measured else [tf.convert_to_tensor(self.moving_mean), tf.convert_to_tensor(self.moving_variance)]
            pixels = inputs if len(inputs.shape) == 4 else tf.reshape(inputs, (-1, 1, 1, inputs.shape[-1]))
            outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
                x=pixels, scale=self.gamma, offset=self.beta, mean=given[0], variance=given[1], epsilon=self.epsilon,
                exponential_avg_factor=1.0, is_training=measured,
            )  # fmt: skip
            if measured:
                self._remember(mean, variance, tf.cast(tf.size(inputs) // inputs.shape[-1], variance.dtype))
            return tf.reshape(outputs, tf.shape(inputs))

        def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
            """Moving averages as Keras keeps them. variance: TensorFlow's, divided by count - 1 where Keras divides by count."""
            for average, value in ((self.moving_mean, mean), (self.moving_variance, variance * (count - 1) / count)):
                average.assign(average * self.momentum + value * (1 - self.momentum))

    return Fused
