"""TensorFlow on a CPU: gradients with fewer passes over memory, and compiled eager calls.

In training, TensorFlow runs each step of a norm, of GELU and of their gradients as a separate pass
over memory, and stores the input of each. Here XLA fuses each chain into one pass, and only two
maps of a block are stored: the normalized one and the input of GELU. The scale and shift of the
norm, layer scale and the shift of global response normalization are folded into the weights; their
gradients follow from the weights'.
"""

import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from keras_convnext.tensorflow_passes import (
    gelu,
    gelu_and_gradient,
    normalized_rows,
    normalized_rows_gradient,
    responses,
    responses_and_gradients,
)

if TYPE_CHECKING:
    from keras_convnext.block import Block
    from keras_convnext.layers import LayerNormalization, PatchConv2D
    from keras_convnext.pretraining.network import MaskedBlock

# Compiled functions by layer. An attribute of the layer would be tracked by Keras and SavedModel.
_compiled: weakref.WeakKeyDictionary[keras.layers.Layer, dict[Any, Any]]
_compiled = weakref.WeakKeyDictionary()


def call_compiled(
    arithmetic: Callable[..., tf.Tensor], layer: keras.layers.Layer, *inputs: tf.Tensor
) -> tf.Tensor:
    """Calls a function of a layer, compiled at the first call for inputs of any size.

    The call costs as much as a few of the operations it replaces. In the graph, TensorFlow fuses
    product, bias and GELU.

    Args:
        arithmetic: callable. Takes the layer and tensors.
        layer: keras.layers.Layer. Its variables must not be replaced.
        *inputs: float32 tensors, of shape `(..., C)`.

    Returns:
        The result of `arithmetic`.
    """
    functions = _compiled.setdefault(layer, {})
    key = arithmetic, len(inputs)
    if key not in functions:
        reference = weakref.ref(layer)  # or the dictionary's value would keep its key alive
        sizes = ((*(None,) * (len(x.shape) - 1), x.shape[-1]) for x in inputs)
        functions[key] = tf.function(
            # Not a lambda: TensorFlow counts its traces by code, and would warn of retracing.
            partial(_applied, arithmetic, reference),
            input_signature=[tf.TensorSpec(shape) for shape in sizes],
            autograph=False,
        )
    return functions[key](*inputs)


def _applied(
    arithmetic: Callable[..., tf.Tensor],
    layer: weakref.ref[keras.layers.Layer],
    *inputs: tf.Tensor,
) -> tf.Tensor:
    return arithmetic(layer(), *inputs)


def normalized(layer: "LayerNormalization", x: tf.Tensor) -> tf.Tensor:
    """Computes layer normalization over the channels, like `LayerNormalization.normalized`.

    Args:
        layer: LayerNormalization.
        x: tensor of shape `(..., C)`.

    Returns:
        A tensor of the shape of `x`.
    """

    @tf.custom_gradient
    def of_rows(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> Any:
        normalized, inverse = normalized_rows(x, layer.epsilon)

        def gradients(d_output: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return (
                normalized_rows_gradient(normalized, inverse, d_output, gamma),
                _sum_of_rows(d_output * normalized),
                _sum_of_rows(d_output),
            )

        return normalized * gamma + beta, gradients

    rows = tf.reshape(x, (-1, x.shape[-1]))
    gamma, beta = map(tf.convert_to_tensor, (layer.gamma, layer.beta))
    return _shaped_as(x, of_rows(rows, gamma, beta))


def residual(block: "Block", x: tf.Tensor, keep: tf.Tensor | None = None) -> tf.Tensor:
    """Computes a block for training, like `Block.residual`.

    Args:
        block: Block. Its dense layers are not quantized.
        x: tensor of shape `(N, H, W, C)`.
        keep: tensor of shape `(N, 1, 1, 1)` or None. As in `Block.residual`.

    Returns:
        A tensor of the shape of `x`.
    """
    branch = _mlp_of(block, depthwise_conv2d(x, block.dwconv.kernel) + block.dwconv.bias)
    return x + (branch if keep is None else keep * branch)


def masked(layer: "MaskedBlock", x: tf.Tensor, visible: tf.Tensor) -> tf.Tensor:
    """Computes a block for masked pre-training, like `MaskedBlock.masked`.

    Only visible positions pass the norm and the pointwise layers, which are most of the work.

    Args:
        layer: MaskedBlock.
        x: tensor of shape `(N, H, W, C)`.
        visible: tensor of shape `(N, H, W, 1)`.

    Returns:
        A tensor of the shape of `x`.
    """
    block = layer.block
    y = depthwise_conv2d(x, block.dwconv.kernel) + block.dwconv.bias
    images, positions = tf.shape(x)[0], tf.reduce_prod(tf.shape(x)[1:3])
    rows = tf.reshape(y, (images * positions, block.dim))
    shown = tf.reshape(visible, (images, positions))
    most = tf.cast(tf.reduce_max(tf.reduce_sum(shown, 1)), tf.int32)
    # The visible positions of each image come first; an image with fewer has some hidden ones, too.
    seen, places = tf.math.top_k(shown, most)  # (N, V)
    image = tf.range(images)[:, None]
    places = tf.reshape(places + image * positions, (-1,))
    ranks = tf.maximum(tf.cast(tf.cumsum(shown, 1), tf.int32) - 1, 0) + image * most
    ranks = tf.reshape(ranks, (-1,))
    is_visible = tf.reshape(visible, (-1, 1))

    @tf.custom_gradient
    def gathered(rows: tf.Tensor) -> Any:  # (N*H*W, C) -> (N*V, C)
        return tf.gather(rows, places), lambda d_output: tf.gather(d_output, ranks) * is_visible

    @tf.custom_gradient
    def spread(rows: tf.Tensor) -> Any:  # (N*V, C) -> (N*H*W, C)
        output = tf.gather(rows, ranks) * is_visible
        return output, lambda d_output: tf.gather(d_output, places)

    y = tf.reshape(gathered(rows), (images, most, block.dim))
    y = _mlp_of(block, y, seen[..., None])
    return (x + _shaped_as(x, spread(tf.reshape(y, (-1, block.dim))))) * visible


def _mlp_of(block: "Block", x: tf.Tensor, visible: tf.Tensor | None = None) -> tf.Tensor:
    return mlp(
        x,
        (block.norm.gamma, block.norm.beta),
        (block.pwconv1.kernel, block.pwconv1.bias),
        (block.pwconv2.kernel, block.pwconv2.bias),
        block.gamma,
        block.grn and (block.grn.gamma, block.grn.beta),
        block.norm.epsilon,
        block.grn.epsilon if block.grn else 0.0,
        visible,
    )


def mlp(
    x: tf.Tensor,
    norm: tuple[Any, Any],
    pwconv1: tuple[Any, Any],
    pwconv2: tuple[Any, Any],
    layer_scale: Any,
    grn: tuple[Any, Any] | None,
    epsilon: float,
    grn_epsilon: float = 0.0,
    visible: tf.Tensor | None = None,
) -> tf.Tensor:
    """Computes all of a block's branch after the depthwise convolution as one operation.

    Args:
        x: tensor of shape `(N, ..., C)`.
        norm: tuple of `gamma` and `beta`, each of shape `(C,)`.
        pwconv1: tuple of kernel and bias, of shapes `(C, 4C)` and `(4C,)`.
        pwconv2: tuple of kernel and bias, of shapes `(4C, C)` and `(C,)`.
        layer_scale: tensor of shape `(C,)`, or None.
        grn: tuple of `gamma` and `beta`, each of shape `(4C,)`, or None.
        epsilon: float. Added to the variance.
        grn_epsilon: float. Added to the mean of the norms in global response normalization.
        visible: tensor of shape `(N, ..., 1)` or None. 1 where global response normalization
            looks, and 0 elsewhere. Defaults to None, for everywhere.

    Returns:
        A tensor of the shape of `x`.
    """

    images = tf.shape(x)[0]

    def by_image(rows: tf.Tensor) -> tf.Tensor:  # (N, H*W, 4C)
        return tf.reshape(rows, (images, -1, rows.shape[-1]))

    seen = None if visible is None else by_image(visible)

    @tf.custom_gradient
    def of_rows(x: tf.Tensor, *weights: tf.Tensor) -> Any:
        gamma, beta, kernel1, bias1, kernel2, bias2, scale, *of_grn = weights
        normalized, inverse = normalized_rows(x, epsilon)
        with tf.control_dependencies([x]):  # or the folded weights of all blocks exist at once
            folded1, folded2 = gamma[:, None] * kernel1, kernel2 * scale
        folded_bias1 = bias1 + tf.linalg.matvec(kernel1, beta, transpose_a=True)
        hidden = tf.nn.bias_add(normalized @ folded1, folded_bias1)
        folded_bias2 = bias2 * scale
        if of_grn:
            mixed, norms = responses(by_image(hidden), of_grn[0], grn_epsilon, seen)
            mixed = tf.reshape(mixed, tf.shape(hidden))
            folded_bias2 += tf.linalg.matvec(folded2, of_grn[1], transpose_a=True)
        else:
            mixed = gelu(hidden)
        output = tf.nn.bias_add(mixed @ folded2, folded_bias2)

        def gradients(d_output: tf.Tensor) -> tuple[tf.Tensor, ...]:
            d_mixed = tf.matmul(d_output * scale, kernel2, transpose_b=True)
            d_folded_bias2 = _sum_of_rows(d_output)
            if of_grn:
                mixed, d_hidden, d_gamma = responses_and_gradients(
                    by_image(hidden), norms, of_grn[0], grn_epsilon, by_image(d_mixed), seen
                )
                mixed, d_hidden = (tf.reshape(y, tf.shape(hidden)) for y in (mixed, d_hidden))
                d_of_grn = [d_gamma, tf.linalg.matvec(kernel2, d_folded_bias2 * scale)]
                d_folded2 = tf.matmul(mixed, d_output, transpose_a=True)
                d_folded2 += of_grn[1][:, None] * d_folded_bias2
            else:
                mixed, d_hidden = gelu_and_gradient(hidden, d_mixed)
                d_of_grn = []
                d_folded2 = tf.matmul(mixed, d_output, transpose_a=True)
            d_folded1 = tf.matmul(normalized, d_hidden, transpose_a=True)
            d_bias1 = _sum_of_rows(d_hidden)
            d_affine = tf.matmul(d_hidden, kernel1, transpose_b=True)
            return (
                normalized_rows_gradient(normalized, inverse, d_affine, gamma),
                tf.reduce_sum(kernel1 * d_folded1, 1),
                tf.linalg.matvec(kernel1, d_bias1),
                gamma[:, None] * d_folded1 + beta[:, None] * d_bias1,
                d_bias1,
                d_folded2 * scale,
                d_folded_bias2 * scale,
                tf.reduce_sum(kernel2 * d_folded2, 0) + bias2 * d_folded_bias2,
                *d_of_grn,
            )

        return output, gradients

    if layer_scale is None:
        layer_scale = tf.ones(x.shape[-1])
    weights = map(tf.convert_to_tensor, (*norm, *pwconv1, *pwconv2, layer_scale, *(grn or ())))
    rows = of_rows(tf.reshape(x, (-1, x.shape[-1])), *weights)
    return _shaped_as(x, rows)


def _shaped_as(x: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    return tf.ensure_shape(tf.reshape(rows, tf.shape(x)), x.shape)


def _sum_of_rows(x: tf.Tensor) -> tf.Tensor:
    """Sums over the rows by a product with ones, which is twice as fast as a reduction."""
    return tf.linalg.matvec(x, tf.ones(tf.shape(x)[:1]), transpose_a=True)


def depthwise_conv2d(x: tf.Tensor, kernel: Any) -> tf.Tensor:
    """Depthwise convolution with stride 1 and "same" padding.

    Args:
        x: tensor of shape `(N, H, W, C)`.
        kernel: tensor of shape `(K, K, C, 1)`.

    Returns:
        A tensor of the shape of `x`.
    """

    @tf.custom_gradient
    def convolve(x: tf.Tensor, kernel: tf.Tensor) -> Any:
        unit = {"strides": (1, 1, 1, 1)}

        def gradients(d_output: tf.Tensor) -> tuple[tf.Tensor, ...]:
            # Explicit padding avoids oneDNN, which is slower for wide kernels, but takes only a
            # third of the time for 3 x 3.
            padding: dict[str, Any] = {"padding": "SAME"}
            if max(kernel.shape[:2]) > 3:
                sides = [((side - 1) // 2, side // 2) for side in kernel.shape[:2]]
                explicit = [0, 0, *sides[0], *sides[1], 0, 0]
                padding = {"padding": "EXPLICIT", "explicit_paddings": explicit}
            return (
                tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                    input_sizes=tf.shape(x),
                    filter=kernel,
                    out_backprop=d_output,
                    padding="SAME",
                    **unit,
                ),
                tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                    input=x,
                    filter_sizes=kernel.shape,
                    out_backprop=d_output,
                    **padding,
                    **unit,
                ),
            )

        output = tf.raw_ops.DepthwiseConv2dNative(input=x, filter=kernel, padding="SAME", **unit)
        return output, gradients

    return convolve(x, tf.convert_to_tensor(kernel))


def convolved(layer: "PatchConv2D", x: tf.Tensor) -> tf.Tensor:
    """Computes a patch convolution as a matrix product, which has a faster gradient.

    Args:
        layer: PatchConv2D.
        x: tensor of shape `(N, H, W, C)`.

    Returns:
        A tensor of shape `(N, H // P, W // P, filters)`.
    """
    kernel, shape = tf.convert_to_tensor(layer.kernel), x.shape
    patch_size, _, channels, filters = kernel.shape
    height, width = (tf.shape(x)[axis] // patch_size for axis in (1, 2))
    x = x[:, : height * patch_size, : width * patch_size]
    x = tf.reshape(x, (-1, patch_size, width, patch_size * channels))
    patches = tf.reshape(tf.transpose(x, (0, 2, 1, 3)), (-1, patch_size**2 * channels))
    rows = patches @ tf.reshape(kernel, (-1, filters))
    outputs = tf.reshape(rows, (-1, height, width, filters))
    sides = [side and side // patch_size for side in shape[1:3]]
    return tf.ensure_shape(outputs, (shape[0], *sides, filters)) + layer.bias
