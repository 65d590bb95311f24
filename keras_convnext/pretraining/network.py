"""The masked autoencoder of ConvNeXt V2: encoder, mask tokens and decoder.

The encoder is dense and equal to one with sparse convolutions: hidden positions are zero wherever a
block looks beyond its own position, so that what is visible does not depend on them.

References:
    Woo et al., "ConvNeXt V2", CVPR 2023, arXiv 2301.00808, section 3 and figure 2.
"""

from typing import Any

import keras
from keras import ops

from keras_convnext.arithmetic import arithmetic_of
from keras_convnext.block import Block
from keras_convnext.builders import BUILDERS
from keras_convnext.initializers import TruncatedNormal
from keras_convnext.printable import printable
from keras_convnext.trunks import trunk_of
from keras_convnext.variants import VARIANTS


class MaskedBlock(keras.layers.Layer):
    """A block of ConvNeXt V2 that sees visible positions only, with the weights of a `Block`.

    Global response normalization sees the visible positions of each image. The released PyTorch
    code pools them over the batch; the published weights were trained in JAX with one norm per
    image (its TRAINING.md, "implementing FCMAE with masked convolution").

    Args:
        block: Block. Built, with `grn`. Its drop path is not used, as in the published runs.

    Call arguments:
        x: tensor (N, H, W, dim), zero at hidden positions.
        visible: tensor (N, H, W, 1), 1 at visible positions and 0 at hidden ones.

    Returns:
        A tensor of the shape of `x`, zero at hidden positions.
    """

    def __init__(self, block: Block) -> None:
        super().__init__(name=f"masked_{block.name}", dtype=block.dtype_policy)
        if block.grn is None:
            raise ValueError(f"block must have grn=True. Received: {printable(block.name)}")
        self.block, self.grn = block, block.grn
        self.supports_jit = block.supports_jit

    def call(self, x: Any, visible: Any, training: bool | None = None) -> Any:
        """Applies the block."""
        visible = ops.cast(visible, x.dtype)
        return arithmetic_of(self, "masked", x, training, may_compile=False)(x, visible)

    def masked(self, x: Any, visible: Any) -> Any:
        """Computes the block with Keras operations."""
        block, shape = self.block, ops.shape(x)
        y = block.norm(block.dwconv(x))  # (N, H, W, C)
        y = block.pwconv1(ops.reshape(y, (-1, block.dim)))  # (N*H*W, 4C)
        y = ops.gelu(y, approximate=False)
        hidden = block.expansion * block.dim
        y = self.grn(ops.reshape(y, (*shape[:-1], hidden)) * visible)  # (N, H, W, 4C)
        y = ops.reshape(block.pwconv2(ops.reshape(y, (-1, hidden))), shape)
        return (x + y) * visible


class MaskToken(keras.layers.Layer):
    """Puts a learned vector at hidden positions.

    Call arguments: `x`, a tensor (N, H, W, C), and `visible`, as in `MaskedBlock`.
    """

    def build(self, x_shape: tuple[int | None, ...], visible_shape: Any = None) -> None:
        """Creates the vector, of shape (C,)."""
        self.token = self.add_weight(
            name="token", shape=(x_shape[-1],), initializer=keras.initializers.RandomNormal(0, 0.02)
        )

    def call(self, x: Any, visible: Any) -> Any:
        """Fills the hidden positions."""
        visible = ops.cast(visible, x.dtype)
        return x * visible + ops.cast(self.token, x.dtype) * (1 - visible)


def trunk_for(model: str, size: int, start: str | None = None) -> keras.Model:
    """Builds the network that is pre-trained, up to its last feature map.

    Args:
        model: str. Name of a ConvNeXt V2.
        size: int. Side of the images, in pixels.
        start: str or None. Weights to start from, as in `weights=`. Defaults to None.

    Raises:
        ValueError: If the network is no ConvNeXt V2.
    """
    if model not in VARIANTS or not VARIANTS[model].grn:
        names = ", ".join(name for name, variant in VARIANTS.items() if variant.grn)
        raise ValueError(f"model must be one of {names}. Received: model={printable(model)}")
    return BUILDERS[model](include_top=False, weights=start, input_shape=(size, size, 3))


def encoded(trunk: keras.Model, pixels: Any, hidden: Any) -> Any:
    """Applies a trunk to the visible part of images.

    Args:
        trunk: keras.Model. A hierarchical ConvNeXt V2, as `trunk_for` returns it.
        pixels: Keras tensor (N, H, W, 3), RGB in 0..255.
        hidden: Keras tensor (N, H, W, 1), 1 at hidden pixels and 0 at visible ones. It must be
            constant over each pixel of the last feature map.

    Returns:
        The last feature map (N, H/32, W/32, C), zero at hidden positions, and `visible` for it.
    """
    x, stride = pixels, 1
    visible = hidden
    for name, layer in trunk_of(trunk).layers.items():
        if isinstance(layer, Block):
            x = MaskedBlock(layer)(x, visible)
            continue
        x = layer(x)
        if name.endswith("_conv"):
            stride *= layer.patch_size
            visible = 1 - hidden[:, ::stride, ::stride]  # (N, H/4, W/4, 1)
        if name == "stem_norm" or name.endswith("_conv"):  # which see one position at a time
            x = x * ops.cast(visible, x.dtype)  # (N, H/4, W/4, C)
    return x, visible


def autoencoder(trunk: keras.Model, width: int = 512, depth: int = 1) -> keras.Model:
    """Builds the masked autoencoder around a trunk, whose layers it shares.

    Args:
        trunk: keras.Model. As `trunk_for` returns it.
        width: int. Channels of the decoder. Defaults to 512.
        depth: int. Number of its blocks. Defaults to 1.

    Returns:
        A keras.Model. Its input (N, H, W, 4) has pixels in 0..255 and, as the fourth channel, 1
        where they are hidden, else 0. Its output (N, H/32, W/32, 32 * 32 * 3) has the pixels of
        each patch, row by row.
    """
    height, side, channels = trunk.input_shape[1:]
    inputs = keras.Input((height, side, channels + 1), name="pixels_and_mask")
    x, visible = encoded(trunk, inputs[..., :channels], inputs[..., channels:])
    stride = height // x.shape[1]
    kernel = TruncatedNormal(stddev=0.02)
    x = keras.layers.Dense(width, kernel_initializer=kernel, name="decoder_projection")(x)
    x = MaskToken(name="decoder_mask")(x, visible)  # (N, H/32, W/32, width)
    for index in range(depth):
        x = Block(width, grn=True, name=f"decoder_{index}")(x)
    outputs = keras.layers.Dense(
        stride**2 * channels,
        kernel_initializer=TruncatedNormal(stddev=0.02),
        dtype="float32",
        name="decoder_pixels",
    )(x)
    return keras.Model(inputs, outputs, name=f"{trunk.name}_fcmae")
