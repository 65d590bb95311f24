"""Counts the weights and multiply-accumulates of whole networks, built without memory for them.

As a script, with PyTorch as the backend: prints them as JSON for every step of the paper's regimes.
"""

import json
import math

import keras

from keras_convnext import roadmap

COUNTED = keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense


def parameters_of(model):
    """Counts the weights that are trained."""
    return sum(math.prod(tuple(weight.shape)) for weight in model.trainable_weights)


def macs_of(model):
    """Counts the multiply-accumulates of the plain layers of a model for one image."""
    return sum(
        math.prod(tuple(layer.kernel.shape)) * math.prod(layer.output.shape[1:-1])
        for layer in model.layers
        if type(layer) in COUNTED
    )


def main():
    found = {}
    for regime in ("resnet50", "resnet200"):
        for step in roadmap.STEPS:
            with keras.device("meta"):
                model = roadmap.network(step, regime)
            found[f"{regime}/{step}"] = parameters_of(model), macs_of(model)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
