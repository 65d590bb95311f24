"""Builds the segmenter of a recipe, and what is trained of it."""

import keras

from keras_convnext.backbones import backbone_of, is_for_whole
from keras_convnext.feature_maps import ResizeLike
from keras_convnext.network import at_least_float32
from keras_convnext.segmentation.builders import UperNet
from keras_convnext.segmentation.recipes import Segmentation


def build_segmenter(recipe: Segmentation, model: str, classes: int) -> keras.Model:
    """Builds the segmenter of a recipe.

    Args:
        recipe: Segmentation. The recipe.
        model: str. Name of the backbone.
        classes: int. Number of classes.

    Returns:
        keras.Model, from pixels in 0..255 (N, H, W, 3) to probabilities (N, H, W, classes).
    """
    own = recipe.network
    whole = is_for_whole("upernet", model, own.start)
    trunk = backbone_of(
        model,
        weights=None if whole else own.start,
        input_shape=(None, None, 3),
        drop_path_rate=own.drop_path_rate,
        layer_scale=own.layer_scale,
        remat=recipe.batch.remat,
    )
    return UperNet(
        trunk,
        weights=own.start if whole else None,
        classes=classes,
        auxiliary=recipe.loss.auxiliary_weight > 0,
        pool_scales=own.pool_scales,
        channels=own.channels,
    )


def trained(segmenter: keras.Model, size: int) -> keras.Model:
    """Returns a model of the same layers for crops, with the outputs that the loss takes.

    Args:
        segmenter: keras.Model. As returned by `build_segmenter`.
        size: int. Side of the crops.

    Returns:
        keras.Model, from pixels (N, size, size, 3) to a list of logits (N, size, size, classes):
        those of the segmenter and, if it has an auxiliary head, of that.
    """
    outputs = [segmenter.get_layer("logits").output]
    names = [layer.name for layer in segmenter.layers]
    if "auxiliary_classifier" in names:
        auxiliary = segmenter.get_layer("auxiliary_classifier").output
        resize = ResizeLike(dtype=at_least_float32(), name="auxiliary_logits")
        outputs.append(resize(auxiliary, segmenter.input))
    whole = keras.Model(segmenter.input, outputs, name=segmenter.name)
    crops = keras.Input((size, size, 3), name="crops")
    return keras.models.clone_model(whole, input_tensors=crops, clone_function=lambda layer: layer)
