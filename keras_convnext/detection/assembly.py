"""What building any detector begins and ends with: its weight file, its inputs, and its maps."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import keras

from keras_convnext.backbones import backbone_of
from keras_convnext.detection.stages import FillPadding
from keras_convnext.detection.weights import classes_in, load_detector_weights
from keras_convnext.initializers import about_to_load
from keras_convnext.layers import LayerNormalization
from keras_convnext.network import at_least_float32
from keras_convnext.normalization import IMAGENET
from keras_convnext.pretrained.cache import weights_file
from keras_convnext.trunks import trunk_of


def file_and_classes(
    kind: str,
    backbone: str | keras.Model,
    weights: str | Path | None,
    classes: int | None,
    default: int = 80,
) -> tuple[Path | None, int]:
    """Returns the weight file, downloading published weights if necessary, and the classes."""
    path = None
    if weights is not None:
        path = weights_file(kind, backbone, weights)
        classes = classes or classes_in(path, kind)
    classes = default if classes is None else classes
    if not isinstance(classes, int) or classes < 1:
        raise ValueError(f"classes must be a positive integer. Received: classes={classes!r}")
    return path, classes


def trunk_for(
    path: Path | None,
    backbone: str | keras.Model,
    input_shape: tuple[int | None, int | None, int],
    include_preprocessing: bool,
    drop_path_rate: float,
) -> keras.Model:
    """Returns the ConvNeXt of a detector, without initial values if they are in a file."""
    with about_to_load() if path is not None else nullcontext():
        return backbone_of(
            backbone,
            input_shape=input_shape,
            include_preprocessing=include_preprocessing,
            drop_path_rate=drop_path_rate,
        )


def normalized_maps(backbone: keras.Model) -> tuple[dict[str, Any], Any, list[Any]]:
    """Returns the inputs, the sizes, and the normalized map of each stage."""
    trunk = trunk_of(backbone)
    channels = trunk.model.input.shape[-1]
    images = keras.Input(trunk.model.input.shape[1:], name="images", dtype=trunk.model.input.dtype)
    sizes = keras.Input((2,), name="sizes", dtype="float32")
    mean = [255 * value for value in IMAGENET.mean] if "normalization" in trunk.layers else [0.0]
    value = (mean * channels)[:channels]
    x = FillPadding(value, dtype=at_least_float32(), name="padding")(images, sizes)
    ends = trunk.ends_of_stages().values()
    stages = keras.Model(trunk.model.input, [block.output for block in ends], name="backbone")
    maps = [
        LayerNormalization(epsilon=block.norm.epsilon, name=f"norm_{stage}")(x)
        for stage, (block, x) in enumerate(zip(ends, stages(x)))
    ]
    return {"images": images, "sizes": sizes}, sizes, maps


def whole_model(
    inputs: dict[str, Any], outputs: dict[str, Any], name: str, path: Path | None
) -> keras.Model:
    """Returns the model of these inputs and outputs, with the weights of a file, if any."""
    model = keras.Model(inputs, outputs, name=name)
    if path is not None:
        load_detector_weights(model, path)
    return model
