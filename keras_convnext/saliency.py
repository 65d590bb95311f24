"""Grad-CAM heat maps, and overlays of them on images."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from PIL import Image

from keras_convnext.call_graph import call_at_inference, graph_of, logits_of
from keras_convnext.printable import printable
from keras_convnext.trunks import check_has_head, trunk_of

# The color map, from cold to hot. Its dark end would hide the image where the heat is low, so
# `overlay` makes it nearly transparent.
COLD_TO_HOT = ((38, 16, 92), (158, 37, 110), (228, 86, 50), (252, 178, 44), (255, 244, 140))
MOST_PAINT = 0.75  # opacity where the heat is 1


def grad_cam(
    model: keras.Model, images: np.ndarray, classes: Sequence[int] | None = None
) -> np.ndarray:
    """Computes Grad-CAM heat maps of a class from the last feature map of the network.

    Each channel of the feature map is weighted by the mean gradient of the class logit, and the
    positive part of the sum is resized to the image. Only the layers after the feature map are
    differentiated. Works on all backends.

    Example:

    ```python
    heat = grad_cam(model, images)  # (N, H, W), for the most probable classes
    overlay(images[0], heat[0]).save("where.png")
    ```

    Args:
        model: keras.Model. A classifier with exactly one ConvNeXt: built by one of the builders,
            with its own head or yours, or a Sequential or functional model that contains one.
            Fused networks work too.
        images: array (N, H, W, C). Input of the model: pixels in 0..255 if it includes the
            preprocessing.
        classes: sequence of N ints or None. The class to explain in each image. Defaults to None:
            the most probable class.

    Returns:
        float32 array (N, H, W) in 0..1. The maximum of each image is 1, or 0 if no part of it
        contributes to the class.

    Raises:
        ValueError: If the model does not contain exactly one ConvNeXt, or does not return only
            logits or probabilities, if `images` is not a batch, or if a class is out of range.

    References:
        Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1 and 2.
    """
    trunk = trunk_of(model)
    graph = logits_of(graph_of(model))
    (logits,) = graph.outputs
    calls = graph.of_layer(trunk.blocks[-1])
    check_has_head(graph, [trunk])
    if len(graph.inputs) != 1 or len(calls) != 1:
        raise ValueError(
            "Grad-CAM needs a classifier with one image input that calls its ConvNeXt once. "
            f"Received: {printable(model.name)} with {len(graph.inputs)} inputs, which calls "
            f"{printable(trunk.name)} {len(calls)} times"
        )
    if np.ndim(images) != 4:
        raise ValueError(f"images must be (N, H, W, C). Received: shape {np.shape(images)}")
    expected = graph.inputs[0].shape[1:]
    if any(side not in (None, given) for side, given in zip(expected, np.shape(images)[1:])):
        raise ValueError(
            f"The model takes images of shape {expected}. Received: shape {np.shape(images)}"
        )
    (last,) = calls[0].outputs
    pixels = keras.ops.convert_to_tensor(images, graph.inputs[0].dtype)
    found = graph.run({graph.inputs[0]: pixels}, call_at_inference)
    scores = keras.ops.convert_to_numpy(keras.ops.cast(found[logits], "float32"))
    wanted = scores.argmax(axis=1) if classes is None else np.asarray(classes)
    count = scores.shape[1]
    if wanted.shape != (len(scores),) or not ((wanted >= 0) & (wanted < count)).all():
        raise ValueError(
            f"classes must hold a class from 0 to {count - 1} for each of the {len(scores)} "
            f"images. Received: classes={classes}"
        )
    chosen = keras.ops.convert_to_tensor(np.eye(count, dtype="float32")[wanted])
    behind = graph.after(last)

    def score(maps: Any) -> Any:
        again = graph.run({**found, last: maps}, call_at_inference, behind)[logits]
        return keras.ops.sum(keras.ops.cast(again, "float32") * chosen)

    maps, slopes = (
        keras.ops.convert_to_numpy(keras.ops.cast(x, "float32"))
        for x in (found[last], _gradient(score, found[last]))
    )
    weights = slopes.mean(axis=(1, 2))
    heat = np.maximum(np.einsum("nhwc,nc->nhw", maps, weights), 0)  # (N, H/32, W/32)
    height, width = np.shape(images)[1:3]
    heat = np.stack([_resized(each, width, height) for each in heat])  # (N, H, W)
    highest = heat.max(axis=(1, 2), keepdims=True)
    return np.divide(heat, highest, out=np.zeros_like(heat), where=highest > 0)


def _gradient(function: Callable[[Any], Any], x: Any) -> Any:
    """Computes the gradient of a scalar function of a tensor, on any backend."""
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, x)
    if keras.config.backend() == "jax":
        import jax

        return jax.grad(function)(x)
    x = x.detach().requires_grad_()
    function(x).backward(inputs=[x])
    return x.grad


def _resized(heat: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(heat).resize((width, height), Image.Resampling.BILINEAR))


def overlay(image: np.ndarray, heat: np.ndarray) -> Image.Image:
    """Overlays a heat map on an image: transparent at 0, more opaque and brighter towards 1.

    Args:
        image: uint8 array (H, W, 3), or (H, W, 1) for grayscale.
        heat: float array (h, w) in 0..1, as returned by `grad_cam`. It is resized to the image,
            which may be larger than the input of the network.

    Returns:
        A PIL image of W x H pixels, in RGB.

    Raises:
        ValueError: If a shape is not as above.
    """
    if image.ndim != 3 or image.shape[2] not in (1, 3) or heat.ndim != 2:
        raise ValueError(
            "image must be (H, W, 3) or (H, W, 1), and heat must be (h, w). "
            f"Received: shapes {image.shape} and {heat.shape}"
        )
    height, width = image.shape[:2]
    heat = _resized(heat.astype("float32"), width, height)
    stops = np.linspace(0, 1, len(COLD_TO_HOT))
    colors = np.stack([np.interp(heat, stops, channel) for channel in zip(*COLD_TO_HOT)], axis=-1)
    share = MOST_PAINT * heat[..., None]
    return Image.fromarray(np.rint(image * (1 - share) + colors * share).astype("uint8"))
