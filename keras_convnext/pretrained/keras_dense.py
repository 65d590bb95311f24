"""Dense networks in `.keras` files.

Keras numbers the weights of such a file by class over the whole model, so that those of the trunk
cannot be told from those of the head without building the model.
"""

import math
from pathlib import Path

import keras

from keras_convnext.pretrained.dense_heads import HEADS
from keras_convnext.pretrained.identify import Identity
from keras_convnext.pretrained.keras_model import load_keras_model
from keras_convnext.pretrained.layouts import STEM_KERNEL
from keras_convnext.pretrained.model_weights import variables_of
from keras_convnext.pretrained.networks import network_of


def identity_of_model(path: str | Path, head: str) -> Identity:
    """Returns the identity of a dense network in a `.keras` file.

    Raises:
        CheckpointError: As `load_keras_model`.
    """
    model = load_keras_model(path)
    shapes = {place: tuple(variable.shape) for place, variable in variables_of(model).items()}
    network = network_of(shapes)
    assert network is not None  # it has a trunk, or `variables_of` would have raised an error
    return Identity(
        network,
        _classes_of(model, head),
        shapes[STEM_KERNEL][2],
        sum(math.prod(variable.shape) for variable in model.trainable_weights),
        has_norm=False,
        head=head,
        layout="keras",
        task=HEADS[head].task,
    )


def _classes_of(model: keras.Model, head: str) -> int:
    kernel = HEADS[head].classifier.layer.partition("/")
    layers = [layer for layer in model.layers if layer.name.endswith(kernel[0])]
    return layers[0].classes if kernel[1] else model.output_shape[-1]
