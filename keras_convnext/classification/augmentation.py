"""Augmentation of single images as in the official training code, before batches are mixed."""

import tensorflow as tf

from keras_convnext.classification import operations
from keras_convnext.classification.erasing import random_erasing as erase
from keras_convnext.classification.rand_augment import rand_augment as distort
from keras_convnext.data.images import training_crop


def training_image(
    encoded: tf.Tensor,
    seed: tf.Tensor,
    size: int = 224,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    horizontal_flip: float = 0.5,
    rand_augment: str | None = "rand-m9-mstd0.5-inc1",
    color_jitter: float | None = None,
    random_erasing: float = 0.25,
) -> tf.Tensor:
    """Decodes and augments a training image, differently for every seed.

    The steps are a random crop, a horizontal flip, RandAugment or else color jitter, and random
    erasing. The seed of each step is derived from `seed`: the same seed gives exactly the same
    image in eager mode and in `Dataset.map`, and the steps are statistically independent.

    Example:

    ```python
    files = tf.data.Dataset.list_files("photographs/*.jpg", seed=1)
    images = files.enumerate().map(
        lambda i, file: training_image(tf.io.read_file(file), seed=tf.stack([epoch, i])),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    ```

    Args:
        encoded: string tensor (). The bytes of a file, as in `images.training_crop`.
        seed: int32 or int64 tensor (2,), such as the epoch and the index of the image.
        size: int. Side of the square, in pixels. Defaults to 224.
        scale: pair of floats. Minimum and maximum area of the crop, as a share of the image.
            Defaults to (0.08, 1.0).
        ratio: pair of floats. Minimum and maximum aspect ratio of the crop, width / height.
            Defaults to (3/4, 4/3).
        horizontal_flip: float. Probability of a horizontal flip. Defaults to 0.5.
        rand_augment: str or None. Configuration of RandAugment, see `rand_augment.rand_augment`, or
            None to disable it. Defaults to that of the paper, "rand-m9-mstd0.5-inc1".
        color_jitter: float or None. Maximum change of brightness, contrast and saturation. Ignored
            if RandAugment is enabled, as in the official code. Defaults to None.
        random_erasing: float. Probability that a box is erased. Defaults to 0.25.

    Returns:
        float32 tensor (size, size, 3), RGB in 0..255; the noise in an erased box may exceed this
        range.

    Raises:
        ValueError: If an argument is out of range.

    References:
        facebookresearch/ConvNeXt, datasets.py, `build_transform`; timm, `create_transform`.
    """
    seeds = tf.random.split(seed, 4)
    image = training_crop(encoded, seeds[0], size, scale, ratio)
    if horizontal_flip:
        mirrored = tf.random.stateless_uniform((), seeds[1], alg="philox") < horizontal_flip
        image = tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: tf.identity(image))
    if rand_augment:
        image = distort(image, seeds[2], rand_augment)
    elif color_jitter:
        image = jitter(image, seeds[2], color_jitter)
    image = tf.cast(image, tf.float32)
    return erase(image, seeds[3], random_erasing) if random_erasing else image


def jitter(image: tf.Tensor, seed: tf.Tensor, strength: float) -> tf.Tensor:
    """Changes brightness, contrast and saturation in random order, as torchvision's `ColorJitter`.

    Args:
        image: uint8 tensor (H, W, 3). RGB in 0..255.
        seed: int tensor (2,). The same seed gives the same image.
        strength: float. Each factor is uniform in 1 - strength..1 + strength, but not negative.

    Returns:
        uint8 tensor (H, W, 3).

    Raises:
        ValueError: If `strength` is negative.
    """
    if strength < 0:
        raise ValueError(f"color_jitter must be at least 0. Received: color_jitter={strength}")
    draws = tf.random.stateless_uniform((2, 3), seed, alg="philox")
    lowest = max(0.0, 1.0 - strength)
    factors = lowest + (1.0 + strength - lowest) * draws[0]
    order = tf.argsort(draws[1])
    for position in range(3):
        which = order[position]
        image = tf.switch_case(
            which,
            [
                lambda image=image, factor=factors[which], operation=operation: operation(
                    image, factor
                )
                for operation in (operations.brightness, operations.contrast, operations.color)
            ],
        )
    return image
