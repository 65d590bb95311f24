"""Small copies of the robustness sets in the layouts of their releases, and a model of color."""

import io
import json

import keras
import numpy as np
from PIL import Image

from keras_convnext.preprocessing import class_labels

WNIDS = [wnid for wnid, _ in class_labels(1000)]


def color_model(outputs=1000, seed=0):
    """Builds a model whose logits are a linear function of the mean color, and returns both."""
    kernel = np.random.default_rng(seed).normal(size=(3, outputs)).astype(np.float32)
    layers = [
        keras.Input((None, None, 3)),
        keras.layers.Rescaling(1 / 255),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(outputs, use_bias=False, dtype="float32"),
    ]
    model = keras.Sequential(layers)
    model.layers[-1].set_weights([kernel])
    return model, lambda color: np.asarray(color, np.float64) / 255 @ kernel.astype(np.float64)


def colors(number, seed=0):
    return [tuple(c) for c in np.random.default_rng(seed).integers(0, 256, (number, 3)).tolist()]


def picture(color, size=(40, 32)):
    """Returns a file of one color, which keeps its mean color however it is resized."""
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return file.getvalue()


def write(root, files):
    """Writes files from {path: contents}."""
    for path, contents in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(contents)
    return root


def validation_name(number):
    return f"ILSVRC2012_val_{number:08}.JPEG"


def write_real_labels(path, labels):
    """Writes `real.json` from {number of an image: list of classes}."""
    lists = [labels.get(number, []) for number in range(1, 50_001)]
    path.write_text(json.dumps(lists))


def write_corruptions(root, color_of, corruptions, severities, classes, size=(224, 224)):
    """Writes `<corruption>/<severity>/<wnid>/ILSVRC2012_val_*.JPEG`, a picture per class.

    `color_of` maps (corruption, severity, class) to a color.
    """
    for corruption in corruptions:
        for severity in severities:
            for number, index in enumerate(classes, 1):
                contents = picture(color_of(corruption, severity, index), size)
                path = f"{corruption}/{severity}/{WNIDS[index]}/{validation_name(number)}"
                write(root, {path: contents})
    return root
