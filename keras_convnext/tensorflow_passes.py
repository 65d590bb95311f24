"""TensorFlow on a CPU: chains of elementwise operations and means, each as one pass over memory.

XLA compiles each chain for each shape of its input. It is slow only at convolutions and products.
"""

from typing import Any

import tensorflow as tf


def _one_pass(function: Any) -> Any:
    return tf.function(function, jit_compile=True, autograph=False)


@_one_pass
def normalized_rows(x: tf.Tensor, epsilon: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Normalizes rows of shape `(M, C)`; also returns the inverse of their standard deviation."""
    centered = x - tf.reduce_mean(x, -1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centered), -1, keepdims=True)
    inverse = tf.math.rsqrt(variance + epsilon)
    return centered * inverse, inverse


@_one_pass
def normalized_rows_gradient(
    normalized: tf.Tensor, inverse: tf.Tensor, d_affine: tf.Tensor, gamma: tf.Tensor
) -> tf.Tensor:
    """Returns the gradient of `normalized_rows` for rows that are then scaled by `gamma`."""
    gradient = d_affine * gamma
    along = tf.reduce_mean(gradient * normalized, -1, keepdims=True)
    return inverse * (gradient - tf.reduce_mean(gradient, -1, keepdims=True) - along * normalized)


@_one_pass
def gelu(x: tf.Tensor) -> tf.Tensor:
    """Computes GELU."""
    return x * _normal_cdf(x)


@_one_pass
def gelu_and_gradient(x: tf.Tensor, d_output: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns GELU and the gradient of `x`."""
    cdf = _normal_cdf(x)
    return x * cdf, d_output * _gelu_slope(x, cdf)


@_one_pass
def responses(
    x: tf.Tensor, gamma: tf.Tensor, epsilon: float, seen: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes GELU and global response normalization without its shift.

    Args:
        x: tensor of shape `(N, H*W, C)`.
        gamma: tensor of shape `(C,)`.
        epsilon: float. Added to the mean of the norms.
        seen: tensor of shape `(N, H*W, 1)`, 1 at the positions that count and 0 at the others, or
            None for all. Defaults to None.

    Returns:
        A tensor of the shape of `x`, and the norms of its channels, of shape `(N, 1, C)`.
    """
    x = x if seen is None else x * seen  # GELU maps 0 to 0
    activated = x * _normal_cdf(x)
    norms = tf.sqrt(tf.reduce_sum(tf.square(activated), 1, keepdims=True))
    shares = norms / (tf.reduce_mean(norms, -1, keepdims=True) + epsilon)
    return activated * (1 + gamma * shares), norms


@_one_pass
def responses_and_gradients(
    x: tf.Tensor,
    norms: tf.Tensor,
    gamma: tf.Tensor,
    epsilon: float,
    d_output: tf.Tensor,
    seen: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the output of `responses`, and the gradients of `x` and `gamma`."""
    x = x if seen is None else x * seen
    cdf = _normal_cdf(x)
    activated = x * cdf
    mean = tf.reduce_mean(norms, -1, keepdims=True) + epsilon
    shares = norms / mean
    scale = 1 + gamma * shares
    d_scale = tf.reduce_sum(d_output * activated, 1, keepdims=True)  # (N, 1, C)
    d_shares = d_scale * gamma
    along = tf.reduce_mean(d_shares * shares, -1, keepdims=True)
    d_norms = (d_shares - along) / mean
    d_activated = d_output * scale + activated * tf.math.divide_no_nan(d_norms, norms)
    d_gamma = tf.reduce_sum(d_scale * shares, (0, 1))
    d_x = d_activated * _gelu_slope(x, cdf)
    return activated * scale, d_x if seen is None else d_x * seen, d_gamma


def _normal_cdf(x: tf.Tensor) -> tf.Tensor:
    return 0.5 + 0.5 * tf.math.erf(x * 0.7071067811865476)


def _gelu_slope(x: tf.Tensor, cdf: tf.Tensor) -> tf.Tensor:
    return cdf + x * tf.exp(-0.5 * tf.square(x)) * 0.3989422804014327  # 1 / sqrt(2 pi)
