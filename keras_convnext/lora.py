"""Low-rank adapters on the pointwise layers of the blocks."""

import keras

from keras_convnext.block import Block
from keras_convnext.layers import LayerNormalization, PatchConv2D


def enable_lora(model: keras.Model, rank: int = 8, alpha: float | None = None) -> None:
    """Freezes the kernels and norms of a trunk, and adds trainable low-rank adapters to its blocks.

    `pwconv1` and `pwconv2` of each block, which hold nearly all the weights, compute with
    `kernel + alpha / rank * a @ b`, where `a` of shape `(inputs, rank)` and `b` of shape
    `(rank, units)` are trained and `kernel` is not. `b` starts as zeros, so the outputs do not
    change at first. The biases of these layers, layer scale and the head are trained as well.
    Compile the model afterwards.

    Adapters are merged into the kernels where weights leave the model: in `.keras` and
    `.weights.h5` files, in `save_checkpoint`, `fuse` and `export`.

    Example:

    ```python
    model = keras_convnext.ConvNeXtTiny(weights="imagenet22k", classes=10)
    keras_convnext.enable_lora(model, rank=8)
    model.compile("adamw", "sparse_categorical_crossentropy")
    model.fit(photos, epochs=5)
    keras_convnext.save_checkpoint(model, "tuned.safetensors", layout="timm")
    ```

    Args:
        model: keras.Model. Made by one of the builders, or a model around one. Layers that are not
            of the network, such as a head of your own, stay as trainable as they are.
        rank: int. Defaults to 8.
        alpha: float or None. Scale of the adapters. Defaults to None: `rank`, a scale of 1.

    Raises:
        ValueError: If `rank` is not a positive int, if the model has no ConvNeXt blocks, or if they
            have adapters already.

    References:
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685.
    """
    if not isinstance(rank, int) or rank < 1:
        raise ValueError(f"rank is a whole number from 1 up. Received: rank={rank}")
    layers = model._flatten_layers(include_self=False)
    blocks = [layer for layer in layers if isinstance(layer, Block)]
    if not blocks:
        raise ValueError(f"The model has no ConvNeXt blocks. Received: model={model.name}")
    if any(dense.lora_enabled for block in blocks for dense in (block.pwconv1, block.pwconv2)):
        raise ValueError(
            "The blocks have adapters already, and LoRA can be enabled once: merge them with "
            f"save_checkpoint and load_model first. Received: model={model.name}"
        )
    for layer in layers:
        if isinstance(layer, (PatchConv2D, LayerNormalization)):
            layer.trainable = False
    for block in blocks:
        block.dwconv.trainable = False
        for dense in (block.pwconv1, block.pwconv2):
            dense.enable_lora(rank, alpha)
