"""Objects in an image of any size, as published: resized, padded, and back in its own pixels."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_convnext.detection.masks import paste_mask
from keras_convnext.resizing import resized_linearly, scaled_size

SCALE = (1333, 800)  # longest and shortest side of the resized image, of the published networks
_MULTIPLE = 32  # of the sides of a padded image


class Detections(NamedTuple):
    """The objects in an image, best first.

    Args:
        boxes: float32 array (D, 4). x1, y1, x2, y2 in pixels of the image.
        scores: float32 array (D,).
        labels: int32 array (D,).
        masks: float32 array (D, 28, 28) or None. In 0..1, within the boxes.
        size: tuple of int. Height and width of the image.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None
    size: tuple[int, int]

    def mask(self, index: int) -> np.ndarray:
        """Returns where a detection is, as a bool array of the size of the image."""
        assert self.masks is not None
        return paste_mask(self.masks[index], self.boxes[index], self.size)


def detect(
    model: keras.Model, image: np.ndarray, *, scale: tuple[int, int] | None = SCALE
) -> Detections:
    """Finds the objects in an image.

    Example:

    ```python
    found = detect(model, np.asarray(Image.open("street.jpg")))
    found.boxes[found.scores > 0.5]
    ```

    Args:
        model: keras.Model. Made by `MaskRCNN` or `CascadeMaskRCNN`.
        image: array (H, W, 3). RGB pixels in 0..255.
        scale: tuple of int or None. The image is resized, with its aspect ratio, to be as large as
            possible with a longer side of at most `max(scale)` and a shorter side of at most
            `min(scale)`. None uses the image as it is. Defaults to (1333, 800), as published.

    Returns:
        `Detections`, in pixels of the image.

    Raises:
        ValueError: If the image has another shape.
    """
    return detect_with(model.predict_on_batch, image, scale)


def detect_with(
    predict: Callable[[dict[str, np.ndarray]], Mapping[str, Any]],
    image: np.ndarray,
    scale: tuple[int, int] | None,
) -> Detections:
    """Finds the objects in an image, as `detect`, with a function that calls the model."""
    if image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"image must have the shape (H, W, 3). Received: shape={image.shape}")
    size = (image.shape[0], image.shape[1])
    if scale is not None:
        image = resized_linearly(image, scaled_size(size, scale))
    height, width = image.shape[:2]
    padding = [(0, -side % _MULTIPLE) for side in (height, width)]
    padded = np.pad(image.astype("float32"), (*padding, (0, 0)))
    inputs = {"images": padded[None], "sizes": np.array([[height, width]], "float32")}
    found = {name: keras.ops.convert_to_numpy(value)[0] for name, value in predict(inputs).items()}
    count = int(found["num_detections"])
    factors = np.array([width / size[1], height / size[0]] * 2, "float32")
    masks = found["masks"][:count] if "masks" in found else None
    return Detections(
        found["boxes"][:count] / factors,
        found["scores"][:count],
        found["labels"][:count],
        masks,
        size,
    )
