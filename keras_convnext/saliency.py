"""Where a network looks: Grad-CAM, and the photograph with it painted over."""

from collections.abc import Sequence

import keras
import numpy as np
from PIL import Image

from keras_convnext.block import Block
from keras_convnext.network import layers_by_name

# Heat from cold to hot. Dark colours hide the photograph where the network did not look, so they
# are nearly transparent: see `overlay`.
COLD_TO_HOT = ((38, 16, 92), (158, 37, 110), (228, 86, 50), (252, 178, 44), (255, 244, 140))
MOST_PAINT = 0.75  # of the colour, where the heat is 1


def grad_cam(
    model: keras.Model, images: np.ndarray, classes: Sequence[int] | None = None
) -> np.ndarray:
    """Tells which parts of images speak for a class, by the last map of the network.

    Each channel of that map is weighted by how much the logit of the class rises with it, and what
    is positive in the sum is scaled to the image. One pass forwards is all it takes, on any
    backend.

    Example:

    ```python
    heat = grad_cam(model, images)  # (N, H, W), for the most probable classes
    overlay(images[0], heat[0]).save("where.png")
    ```

    Args:
        model: keras.Model. Made by one of the builders, with its head; or such a one fused.
        images: array (N, H, W, C). Pixels as the model takes them: in 0..255 for one that
            normalises by itself.
        classes: sequence of N ints or None. The class asked about, for each image. Defaults to
            None, the most probable.

    Returns:
        float32 array (N, H, W) in 0..1: the largest value of each image is 1, or 0 if nothing in it
        speaks for the class.

    Raises:
        ValueError: If the model has no head, the images are no batch, or a class is none of the
            model's.

    References:
        Selvaraju et al., "Grad-CAM", ICCV 2017, equations 1 and 2.
    """
    layers = layers_by_name(model)
    blocks = [layer for layer in layers.values() if isinstance(layer, Block)]
    if not blocks or not {"norm", "head"} <= set(layers):
        raise ValueError(
            "Grad-CAM takes a network with its head, as the builders make it: pass the network "
            f"itself, not a model around it. Received: model={model.name} with the layers "
            f"...{[*layers][-4:]}"
        )
    if np.ndim(images) != 4:
        raise ValueError(f"images has the shape (N, H, W, C). Received: shape {np.shape(images)}")
    network = keras.Model(model.input, [blocks[-1].output, layers["head"].output])
    outputs = network(np.asarray(images, "float32"), training=False)
    maps, logits = (np.asarray(keras.ops.convert_to_numpy(x), "float32") for x in outputs)
    wanted = logits.argmax(axis=1) if classes is None else np.asarray(classes)
    count = logits.shape[1]
    if wanted.shape != (len(maps),) or not ((wanted >= 0) & (wanted < count)).all():
        raise ValueError(
            f"classes has a number from 0 to {count - 1} for each of the {len(maps)} images. "
            f"Received: classes={classes}"
        )
    weights = _slopes(maps.mean(axis=(1, 2)), layers["norm"], layers["head"], wanted)
    heat = np.maximum(np.einsum("nhwc,nc->nhw", maps, weights), 0)  # (N, H/32, W/32)
    height, width = np.shape(images)[1:3]
    heat = np.stack([_resized(each, width, height) for each in heat])  # (N, H, W)
    highest = heat.max(axis=(1, 2), keepdims=True)
    return np.divide(heat, highest, out=np.zeros_like(heat), where=highest > 0)


def _slopes(
    pooled: np.ndarray, norm: keras.layers.Layer, head: keras.layers.Layer, classes: np.ndarray
) -> np.ndarray:
    """The gradient of a logit by the pooled map, which is that by the map but for a factor.

    The mean, a layer normalization and a linear layer are all that follows the map, so the gradient
    is written out: that spares one automatic differentiation for each backend.

    Args:
        pooled: array (N, C). The mean of each channel.
        norm: keras.layers.LayerNormalization. With a scale, or without one in a fused network.
        head: keras.layers.Dense.
        classes: int array (N,).

    Returns:
        float32 array (N, C).
    """
    slopes = keras.ops.convert_to_numpy(head.kernel).astype("float32").T[classes]
    if norm.scale:
        slopes = slopes * keras.ops.convert_to_numpy(norm.gamma)
    deviation = np.sqrt(pooled.var(axis=1, keepdims=True) + norm.epsilon)
    normed = (pooled - pooled.mean(axis=1, keepdims=True)) / deviation
    along = (slopes * normed).mean(axis=1, keepdims=True)
    return (slopes - slopes.mean(axis=1, keepdims=True) - normed * along) / deviation


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
