"""Low-rank adapters on the pointwise layers of the blocks."""

import keras

from keras_convnext.block import Block
from keras_convnext.layers import LayerNormalization, PatchConv2D
from keras_convnext.printable import printable


def enable_lora(model: keras.Model, rank: int = 8, alpha: float | None = None) -> None:
    """Freezes the kernels and norms of a trunk, and adds trainable low-rank adapters to its blocks.

    `pwconv1` and `pwconv2` of each block, which hold nearly all weights, compute with
    `kernel + alpha / rank * a @ b`, where `a` of shape `(inputs, rank)` and `b` of shape
    `(rank, units)` are trainable and `kernel` is frozen. `b` is initialized with zeros, so the
    outputs do not change at first. The biases of these layers, layer scale and the head stay
    trainable. Compile the model afterwards.

    The adapters are merged into the kernels whenever weights leave the model: in `.keras` and
    `.weights.h5` files, and in `save_checkpoint`, `fuse` and `export`.

    Example:

    ```python
    model = keras_convnext.ConvNeXtTiny(weights="imagenet22k", classes=10)
    keras_convnext.enable_lora(model, rank=8)
    model.compile("adamw", "sparse_categorical_crossentropy")
    model.fit(photos, epochs=5)
    keras_convnext.save_checkpoint(model, "tuned.safetensors", layout="timm")
    ```

    Args:
        model: keras.Model. A ConvNeXt, or a model that contains one. Layers outside of the network,
            such as your own head, keep their `trainable` attribute.
        rank: int. Rank of the adapters. Defaults to 8.
        alpha: float or None. Scale of the adapters is `alpha / rank`. Defaults to None: `rank`, for
            a scale of 1.

    Raises:
        ValueError: If `rank` is not a positive int, if the model has no ConvNeXt blocks, or if they
            already have adapters.

    References:
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685.
    """
    if not isinstance(rank, int) or rank < 1:
        raise ValueError(f"rank must be a positive integer. Received: rank={rank}")
    layers = model._flatten_layers(include_self=False)
    blocks = [layer for layer in layers if isinstance(layer, Block)]
    if not blocks:
        raise ValueError(
            f"The model has no ConvNeXt blocks. Received: model={printable(model.name)}"
        )
    if any(dense.lora_enabled for block in blocks for dense in (block.pwconv1, block.pwconv2)):
        raise ValueError(
            "LoRA is already enabled, and can only be enabled once: merge the adapters with "
            f"save_checkpoint and load_model first. Received: model={printable(model.name)}"
        )
    for layer in layers:
        if isinstance(layer, (PatchConv2D, LayerNormalization)):
            layer.trainable = False
    for block in blocks:
        block.dwconv.trainable = False
        for dense in (block.pwconv1, block.pwconv2):
            dense.enable_lora(rank, alpha)
