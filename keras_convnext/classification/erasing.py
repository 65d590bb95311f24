"""Random erasing as in the official code: part of the image is replaced by a box of noise.

References:
    - "Random Erasing Data Augmentation", Zhong et al., arXiv 1708.04896.
    - timm, data/random_erasing.py, mode "pixel".
"""

import math

import tensorflow as tf

from keras_convnext.normalization import IMAGENET

AREA = (0.02, 1 / 3)  # share of the image
ASPECT = (0.3, 1 / 0.3)  # height / width
TRIES = 10  # boxes drawn until one is smaller than the image


def random_erasing(image: tf.Tensor, seed: tf.Tensor, probability: float = 0.25) -> tf.Tensor:
    """Replaces a random box of the image by noise, with some probability.

    The noise is normally distributed with the mean and standard deviation of ImageNet's pixels.
    After normalization in the network, it equals the standard normal noise of the official code.

    Example:

    ```python
    image = random_erasing(tf.cast(image, tf.float32), seed=(1, 2))
    ```

    Args:
        image: float32 tensor (H, W, 3). RGB in 0..255.
        seed: int tensor (2,). The same seed erases the same box with the same noise.
        probability: float. Probability that a box is erased. Defaults to 0.25.

    Returns:
        float32 tensor (H, W, 3). The noise is not clipped to 0..255.
    """
    seeds = tf.random.split(seed, 3)

    def erased() -> tf.Tensor:
        top, left, height, width = tf.unstack(erased_box(tf.shape(image)[:2], seeds[1]))
        noise = tf.random.stateless_normal((height, width, 3), seeds[2], alg="philox")
        noise = 255.0 * (tf.constant(IMAGENET.mean) + tf.constant(IMAGENET.std) * noise)
        rows = image[top : top + height]
        middle = tf.concat([rows[:, :left], noise, rows[:, left + width :]], axis=1)
        return tf.concat([image[:top], middle, image[top + height :]], axis=0)

    # If nothing is erased, which is the usual case, only this draw is computed.
    erases = tf.random.stateless_uniform((), seeds[0], alg="philox") < probability
    return tf.ensure_shape(tf.cond(erases, erased, lambda: tf.identity(image)), image.shape)


def erased_box(sides: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Draws the box of `random_erasing` in an image with the given sides, int32 (2,).

    Returns:
        int32 tensor (4,): top, left, height, width; zeros if no box fits.
    """
    sides = tf.cast(sides, tf.float32)
    draws = tf.random.stateless_uniform((4, TRIES), seed, alg="philox")
    areas = (AREA[0] + (AREA[1] - AREA[0]) * draws[0]) * sides[0] * sides[1]
    logs = math.log(ASPECT[0]), math.log(ASPECT[1])
    aspects = tf.exp(logs[0] + (logs[1] - logs[0]) * draws[1])
    heights, widths = tf.round(tf.sqrt(areas * aspects)), tf.round(tf.sqrt(areas / aspects))
    fits = (heights < sides[0]) & (widths < sides[1])
    tops = tf.floor(draws[2] * (sides[0] - heights + 1))
    lefts = tf.floor(draws[3] * (sides[1] - widths + 1))
    boxes = tf.stack([tops, lefts, heights, widths], axis=1)  # (TRIES, 4)
    first = boxes[tf.argmax(tf.cast(fits, tf.int32))]
    return tf.cast(tf.where(tf.reduce_any(fits), first, 0.0), tf.int32)
