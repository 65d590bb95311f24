"""JAX on a CPU: depthwise convolution as a sum, and rematerialization that saves memory.

XLA fuses the sum into one pass, which is as fast as oneDNN's kernel. With XLA's convolution,
inference with the tiny network takes four to six times as long, and a training step four times.
"""

from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING

import jax
from jax import Array, lax
from jax import numpy as jnp

if TYPE_CHECKING:
    from keras_convnext.block import Block

Pads = tuple[int, int]  # rows above and columns left of a feature map


def residual(block: "Block", x: Array, keep: Array | None = None) -> Array:
    """Computes a block, as `Block.residual` does.

    Args:
        block: Block.
        x: array of shape `(N, H, W, C)`.
        keep: array of shape `(N, 1, 1, 1)` or None. As in `Block.residual`.

    Returns:
        An array of the shape of `x`.
    """
    kernel, bias = (
        jnp.asarray(weight, x.dtype) for weight in (block.dwconv.kernel, block.dwconv.bias)
    )
    branch = block.mlp(depthwise_conv2d(x, kernel) + bias)
    return x + (branch if keep is None else keep * branch)


def remat(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Wraps a function so that its gradient stores only the input and recomputes the rest.

    `jax.checkpoint` does the same, but on a CPU XLA schedules the recomputation early, so that all
    intermediate results are in memory at once. Here it depends on the incoming gradient.
    """

    def rematerialized(x: Array) -> Array:
        closed, weights = jax.closure_convert(function, x)

        @jax.custom_vjp
        def run(x: Array, *weights: Array) -> Array:
            return closed(x, *weights)

        def forward(x: Array, *weights: Array) -> tuple[Array, tuple[Array, ...]]:
            return run(x, *weights), (x, *weights)

        def backward(kept: tuple[Array, ...], d_output: Array) -> tuple[Array, ...]:
            x, *weights = kept
            _, gradients = jax.vjp(closed, x + 0 * jnp.ravel(d_output)[0], *weights)
            return gradients(d_output)

        run.defvjp(forward, backward)
        return run(x, *weights)

    return rematerialized


def depthwise_conv2d(x: Array, kernel: Array) -> Array:
    """Depthwise convolution with stride 1 and "same" padding.

    Supports reverse-mode differentiation, as used in training, but not forward mode.

    Args:
        x: array of shape `(N, H, W, C)`.
        kernel: of shape `(K, K, C, 1)`.

    Returns:
        An array of the shape and dtype of `x`. Half precision is accumulated in float32.
    """
    exact = jnp.promote_types(x.dtype, "float32")
    return _convolution(x.astype(exact), kernel[..., 0].astype(exact)).astype(x.dtype)


@jax.custom_vjp
def _convolution(x: Array, kernel: Array) -> Array:
    return _convolved(x, kernel, _pads(kernel))


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _convolution(x, kernel), (x, kernel)


def _backward(kept: tuple[Array, Array], d_output: Array) -> tuple[Array, Array]:
    x, kernel = kept
    (height, width, _), (above, before) = kernel.shape, _pads(kernel)
    padded = _padded(x, kernel, (above, before))

    def weight(tap: Array) -> Array:
        moved = lax.dynamic_slice(padded, (0, tap // width, tap % width, 0), x.shape)
        return jnp.sum(moved * d_output, (0, 1, 2))

    # Sequentially: unrolled, it takes longer to compile and to run.
    d_kernel = lax.map(weight, jnp.arange(height * width)).reshape(kernel.shape)
    opposite = height - 1 - above, width - 1 - before
    return _convolved(d_output, kernel[::-1, ::-1], opposite), d_kernel


_convolution.defvjp(_forward, _backward)


def _convolved(x: Array, kernel: Array, pads: Pads) -> Array:
    (rows, columns), padded = x.shape[1:3], _padded(x, kernel, pads)
    return reduce(
        jnp.add,
        (
            padded[:, down : down + rows, right : right + columns] * kernel[down, right]
            for down in range(kernel.shape[0])
            for right in range(kernel.shape[1])
        ),
    )


def _pads(kernel: Array) -> Pads:
    return (kernel.shape[0] - 1) // 2, (kernel.shape[1] - 1) // 2


def _padded(x: Array, kernel: Array, pads: Pads) -> Array:
    above, before = pads
    below, after = kernel.shape[0] - 1 - above, kernel.shape[1] - 1 - before
    return jnp.pad(x, ((0, 0), (above, below), (before, after), (0, 0)))
