"""Builds the classifier of a recipe."""

import keras

from keras_convnext.builders import BUILDERS
from keras_convnext.classification.memory import network_of
from keras_convnext.classification.recipes import Classification
from keras_convnext.roadmap.graph import network as roadmap_network
from keras_convnext.roadmap.steps import find_model


def build_classifier(
    recipe: Classification, model: str, classes: int, any_size: bool = False
) -> keras.Model:
    """Builds the classifier of a recipe.

    Args:
        recipe: Classification. The recipe.
        model: str. Name of the network.
        classes: int. Number of classes.
        any_size: bool. Whether it takes images of any size, not only the recipe's.

    Returns:
        keras.Model, from pixels in 0..255 (N, size, size, 3) to probabilities (N, classes).
    """
    side = None if any_size else recipe.input.size
    if road := find_model(model):
        step, regime = road
        return roadmap_network(
            step.name,
            regime.name,
            input_shape=(side, side, 3),
            classes=classes,
            drop_path_rate=recipe.network.drop_path_rate,
        )
    return BUILDERS[model](
        weights=recipe.network.start,
        input_shape=(side, side, 3),
        classes=classes,
        drop_path_rate=recipe.network.drop_path_rate,
        head_init_scale=recipe.network.head_init_scale,
        layer_scale_init_value=network_of(recipe, model).layer_scale,
        remat=recipe.batch.remat,
    )


def for_size(classifier: keras.Model, size: int) -> keras.Model:
    """Returns a model of the same layers that takes images of one size."""
    image = keras.Input((size, size, 3), name=classifier.input.name)
    return keras.models.clone_model(
        classifier, input_tensors=image, clone_function=lambda layer: layer
    )


def without_softmax(classifier: keras.Model) -> keras.Model:
    """Returns a model of the same layers that returns logits (N, classes), as the loss expects.

    They are cast to the dtype of the probabilities, which is float32 with mixed precision.
    """
    policy = classifier.get_layer("predictions").dtype_policy
    cast = keras.layers.Activation("linear", dtype=policy, name="logits")
    logits = cast(classifier.get_layer("head").output)
    return keras.Model(classifier.input, logits, name=classifier.name)
