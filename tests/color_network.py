"""A network that is known by heart: its classes are red, green and blue."""

import numpy as np

import keras_convnext

COLORS = ("red", "green", "blue")


def one_class_a_color(size=64):
    """Sets the weights by hand: the blocks pass everything on, and a channel is a class."""
    model = keras_convnext.ConvNeXtIsotropic(1, 3, classes=3, input_shape=(size, size, 3))
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape))
    identity = np.tile(np.eye(3), (16, 16, 1, 1)) / 256
    model.get_layer("stem_conv").set_weights([identity, np.zeros(3)])
    model.get_layer("norm").set_weights([np.ones(3), np.zeros(3)])
    model.get_layer("head").set_weights([np.eye(3), np.zeros(3)])
    return model


def save_with_names(model, folder):
    """Writes `model.keras` and the names of the classes beside it; returns the path."""
    (folder / "classes.txt").write_text("\n".join(COLORS))
    model.save(folder / "model.keras")
    return folder / "model.keras"
