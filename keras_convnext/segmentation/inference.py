"""Class maps of images of any size, by the published rules."""

from collections.abc import Sequence
from functools import partial

import keras
import numpy as np

from keras_convnext.feature_maps import with_values
from keras_convnext.resizing import resized_linearly, scaled_size
from keras_convnext.segmentation.windows import Predict, class_map, mean_logits, whole_at

# Of the published evaluation at several scales, each with and without a flip.
RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)

# Of the networks for 512 px: longest and shortest side of the scaled image, window and stride.
SCALE, CROP, STRIDE = (2048, 512), 512, 341


def predict_classes(
    model: keras.Model | Predict,
    image: np.ndarray,
    *,
    scale: tuple[int, int] | None = None,
    crop: int = CROP,
    stride: int = STRIDE,
    ratios: Sequence[float] = (),
) -> np.ndarray:
    """Predicts the class of each pixel of an image, in overlapping windows or at several scales.

    The logits of overlapping windows are averaged and resized to the size of the image, as in the
    published single-scale evaluation. Memory depends on the width of the image, not on its height.

    With `ratios`, as in the published multi-scale evaluation, the whole image is predicted at each
    scale and flipped as well, and the probabilities are averaged at the size of the image. This
    needs memory for the logits of the largest scale.

    Example:

    ```python
    classes = predict_classes(model, np.asarray(Image.open("street.jpg")))  # (H, W)
    ```

    Args:
        model: keras.Model, or function of an array. From pixels (N, H, W, 3) in 0..255 to logits
            (N, H, W, classes), or a model with a last activation, which is left out. For several
            images pass `with_logits(model)`, which does that once.
        image: array (H, W, 3). RGB pixels in 0..255.
        scale: tuple of int or None. The image is resized, with its aspect ratio, to be as large as
            possible with a longer side of at most `max(scale)` and a shorter side of at most
            `min(scale)`; (2048, 512) for the published networks for 512 px, (2560, 640) for those
            for 640 px. Defaults to None: the image is used as it is.
        crop: int. Side of the windows, in pixels. Defaults to 512.
        stride: int. Distance between two windows, in pixels. Defaults to 341.
        ratios: sequence of float. Factors of `scale`, or of the size of the image, such as
            `RATIOS`. Windows are not used then. Defaults to none.

    Returns:
        int32 array (H, W) of classes.

    Raises:
        ValueError: If an argument is invalid.

    References:
        facebookresearch/ConvNeXt, semantic_segmentation/configs/convnext.
    """
    if image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"image must have the shape (H, W, 3). Received: shape={image.shape}")
    if not 0 < stride <= crop:
        raise ValueError(f"stride must be in 1..crop. Received: stride={stride}, crop={crop}")
    size = (image.shape[0], image.shape[1])
    predict = with_logits(model) if isinstance(model, keras.Model) else model
    if ratios:
        return _at_scales(predict, image, scale or (max(size), min(size)), ratios)
    if scale is not None:
        image = resized_linearly(image, scaled_size(size, scale))
    bands = mean_logits(image, predict, crop, stride)
    return class_map(bands, image.shape[0], size)


def _at_scales(
    predict: Predict, image: np.ndarray, scale: tuple[int, int], ratios: Sequence[float]
) -> np.ndarray:
    """Returns the classes of the largest mean probabilities over scales and flips."""
    size = (image.shape[0], image.shape[1])
    total: np.ndarray | float = 0.0
    for ratio in ratios:
        longest, shortest = (int(side * ratio) for side in scale)
        scaled = resized_linearly(image, scaled_size(size, (longest, shortest)))
        for flipped in (False, True):
            pixels = scaled[:, ::-1] if flipped else scaled
            logits = predict(np.ascontiguousarray(pixels)[None])[0]
            probabilities = np.stack([_softmax(row) for row in whole_at(logits, size)])
            total = total + (probabilities[:, ::-1] if flipped else probabilities)
    return np.argmax(total, axis=-1).astype(np.int32)


def _softmax(row: np.ndarray) -> np.ndarray:
    """Returns the probabilities (W, classes) of logits."""
    powers = np.exp(row - row.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def with_logits(model: keras.Model) -> Predict:
    """Returns a function from pixels (N, h, w, 3) to the logits of a segmenter.

    Args:
        model: keras.Model. Its last layer may be an activation or a class map, which is left out.
    """
    model = with_values(model)
    last = model.layers[-1]
    if isinstance(last, keras.layers.Activation | keras.layers.Softmax):
        model = keras.Model(model.input, last.input, name=model.name)
    return partial(_logits, model)


def _logits(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model.predict_on_batch(pixels))
