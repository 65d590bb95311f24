"""Where a network looks: Grad-CAM, and the photograph with it painted over."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from PIL import Image

from keras_convnext.call_graph import call_at_inference, graph_of, logits_of
from keras_convnext.trunks import check_has_head, trunk_of

# Heat from cold to hot. Dark colours hide the photograph where the network did not look, so they
# are nearly transparent: see `overlay`.
COLD_TO_HOT = ((38, 16, 92), (158, 37, 110), (228, 86, 50), (252, 178, 44), (255, 244, 140))
MOST_PAINT = 0.75  # of the colour, where the heat is 1


def grad_cam(
    model: keras.Model, images: np.ndarray, classes: Sequence[int] | None = None
) -> np.ndarray:
    """Tells which parts of images speak for a class, by the last map of the network.

    Each channel of that map is weighted by how much the logit of the class rises with it, and what
    is positive in the sum is scaled to the image. Only what follows the map is differentiated, on
    any backend.

    Example:

    ```python
    heat = grad_cam(model, images)  # (N, H, W), for the most probable classes
    overlay(images[0], heat[0]).save("where.png")
    ```

    Args:
        model: keras.Model. A classifier with one ConvNeXt in it: made by one of the builders, with
            its head or one of your own, nested in a Sequential or functional model or not, or such
            a one fused.
        images: array (N, H, W, C). Pixels as the model takes them: in 0..255 for one that
            normalises by itself.
        classes: sequence of N ints or None. The class asked about, for each image. Defaults to
            None, the most probable.

    Returns:
        float32 array (N, H, W) in 0..1: the largest value of each image is 1, or 0 if nothing in it
        speaks for the class.

    Raises:
        ValueError: If the model has no ConvNeXt or several, or does not give logits or
            probabilities alone, if the images are no batch, or if a class is none of the model's.

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
            "Grad-CAM explains a classifier that takes one image and looks at it once. "
            f"Received: {model.name}, with {len(graph.inputs)} inputs, which calls "
            f"{trunk.name} {len(calls)} times"
        )
    if np.ndim(images) != 4:
        raise ValueError(f"images has the shape (N, H, W, C). Received: shape {np.shape(images)}")
    (last,) = calls[0].outputs
    pixels = keras.ops.convert_to_tensor(images, graph.inputs[0].dtype)
    found = graph.run({graph.inputs[0]: pixels}, call_at_inference)
    scores = keras.ops.convert_to_numpy(keras.ops.cast(found[logits], "float32"))
    wanted = scores.argmax(axis=1) if classes is None else np.asarray(classes)
    count = scores.shape[1]
    if wanted.shape != (len(scores),) or not ((wanted >= 0) & (wanted < count)).all():
        raise ValueError(
            f"classes has a number from 0 to {count - 1} for each of the {len(scores)} images. "
            f"Received: classes={classes}"
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
    """The gradient of a function of a tensor to a number, on any backend."""
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
    """Paints heat over a photograph: nothing where it is 0, the more and the brighter to 1.

    Args:
        image: uint8 array (H, W, 3), or (H, W, 1) if it is grey.
        heat: float array (h, w) in 0..1, as `grad_cam` gives it. It is scaled to the image, which
            may be larger than what the network saw.

    Returns:
        A PIL image of W x H pixels, in RGB.

    Raises:
        ValueError: If one of the shapes is another.
    """
    if image.ndim != 3 or image.shape[2] not in (1, 3) or heat.ndim != 2:
        raise ValueError(
            "image has the shape (H, W, 3) or (H, W, 1), and heat (h, w). "
            f"Received: shapes {image.shape} and {heat.shape}"
        )
    height, width = image.shape[:2]
    heat = _resized(heat.astype("float32"), width, height)
    stops = np.linspace(0, 1, len(COLD_TO_HOT))
    colors = np.stack([np.interp(heat, stops, channel) for channel in zip(*COLD_TO_HOT)], axis=-1)
    share = MOST_PAINT * heat[..., None]
    return Image.fromarray(np.rint(image * (1 - share) + colors * share).astype("uint8"))
