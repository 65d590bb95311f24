"""Decodes and resizes image files to squares inside `tf.data`, with the same pixels as Pillow.

Images are decoded as in Pillow, JPEGs only inside the crop. They are resized as in `resizing`:
bicubic and antialiased, first along the width, rounded to whole gray levels, then along the height.
"""

import math

import tensorflow as tf

from keras_convnext.data.decoding import Decoder, Placement, decode_by_pillow, decode_window
from keras_convnext.normalization import crop_share
from keras_convnext.resizing import TALLEST

TRIES = 10  # boxes drawn until one lies within the image


def training_crop(
    encoded: tf.Tensor,
    seed: tf.Tensor,
    size: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> tf.Tensor:
    """Decodes a random box of an image and resizes it to a square.

    The box is drawn like that of torchvision's `RandomResizedCrop`: its share of the area is
    uniform in `scale`, its aspect ratio log-uniform in `ratio`, and its position uniform. If none
    of ten boxes fits in the image, the largest central box with an allowed aspect ratio is used.

    Example:

    ```python
    image = training_crop(tf.io.read_file("cat.jpg"), seed=(1, 2), size=224)
    ```

    Args:
        encoded: string tensor (). The bytes of a file in any format supported by `load_image`,
            decoded to the same pixels: upright, RGB, first frame of an animation. JPEG and PNG are
            the fastest.
        seed: int tensor (2,). The same seed draws the same box.
        size: int. Side of the square, in pixels.
        scale: pair of floats. Minimum and maximum share of the area. Defaults to (0.08, 1.0).
        ratio: pair of floats. Minimum and maximum aspect ratio, width / height. Defaults to
            (3/4, 4/3).

    Returns:
        uint8 tensor (size, size, 3), RGB in 0..255.

    Raises:
        ValueError: If `size`, `scale` or `ratio` is out of range.

    References:
        torchvision, `transforms.RandomResizedCrop`; facebookresearch/ConvNeXt, datasets.py.
    """
    _check_size(size)
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(
            "scale must be the minimum and maximum share of the area, in (0, 1]. "
            f"Received: scale={scale}"
        )
    if not 0 < ratio[0] <= ratio[1]:
        raise ValueError(
            "ratio must be the minimum and maximum of width / height, above 0. "
            f"Received: ratio={ratio}"
        )

    def crop(height: tf.Tensor, width: tf.Tensor) -> Placement:
        return _warped(random_box(height, width, seed, scale, ratio), size)

    return _resize(*decode_window(encoded, crop), size)


def evaluation_image(
    encoded: tf.Tensor,
    size: int = 224,
    other: Decoder = decode_by_pillow,
    crop: float | None = None,
) -> tf.Tensor:
    """Decodes, resizes and crops an image as in the published evaluation.

    As in `preprocessing.load_image`, the short side is resized to `size / crop` and the center is
    cropped, or the whole image is warped to the square. Only the pixels in the crop are decoded and
    resized.

    Example:

    ```python
    files = tf.data.Dataset.list_files("photographs/*.jpg")
    images = files.map(tf.io.read_file).map(evaluation_image).batch(64)
    ```

    Args:
        encoded: string tensor (). The bytes of a file, as in `training_crop`.
        size: int. Side of the square, in pixels. Defaults to 224.
        other: function of `encoded`. Decodes the files that TensorFlow does not decode like Pillow,
            to uint8 (H, W, 3). Defaults to Pillow, which cannot be saved in a graph.
        crop: float in 0..1, or None. As in `load_image`.

    Returns:
        uint8 tensor (size, size, 3), RGB in 0..255, within 1 gray level of `load_image`.

    References:
        facebookresearch/ConvNeXt, datasets.py, `build_transform`.
    """
    _check_size(size)

    share = crop_share(size, crop)

    def seen(height: tf.Tensor, width: tf.Tensor) -> Placement:
        if not share:
            return _warped(tf.stack([0, 0, height, width]), size)
        return _central(height, width, size, share)

    return _resize(*decode_window(encoded, seen, other), size)


def whole_image(encoded: tf.Tensor, size: int = 224) -> tf.Tensor:
    """Decodes an image and resizes all of it to a square.

    This is for files that were cropped when they were published, such as those of ImageNet-C. One
    that already has the size keeps its pixels.

    Args:
        encoded: string tensor (). The bytes of a file, as in `training_crop`.
        size: int. Side of the square, in pixels. Defaults to 224.

    Returns:
        uint8 tensor (size, size, 3), RGB in 0..255.
    """
    _check_size(size)

    def all_of_it(height: tf.Tensor, width: tf.Tensor) -> Placement:
        return _warped(tf.stack([0, 0, height, width]), size)

    return _resize(*decode_window(encoded, all_of_it), size)


def random_box(
    height: tf.Tensor,
    width: tf.Tensor,
    seed: tf.Tensor,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tf.Tensor:
    """Draws the box of `training_crop` in an image of `height` x `width` pixels.

    Returns:
        int32 tensor (4,): top, left, height, width.
    """
    image_height, image_width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    draws = tf.random.stateless_uniform((4, TRIES), seed, alg="philox")
    areas = (scale[0] + (scale[1] - scale[0]) * draws[0]) * image_height * image_width
    logs = math.log(ratio[0]), math.log(ratio[1])
    aspects = tf.exp(logs[0] + (logs[1] - logs[0]) * draws[1])
    widths, heights = tf.round(tf.sqrt(areas * aspects)), tf.round(tf.sqrt(areas / aspects))
    fits = (widths <= image_width) & (heights <= image_height)
    tops = tf.floor(draws[2] * (image_height - heights + 1))
    lefts = tf.floor(draws[3] * (image_width - widths + 1))
    boxes = tf.stack([tops, lefts, heights, widths], axis=1)  # (TRIES, 4)

    central_width = tf.minimum(image_width, tf.round(image_height * ratio[1]))
    central_height = tf.minimum(image_height, tf.round(image_width / ratio[0]))
    central = tf.stack(
        [
            (image_height - central_height) // 2,
            (image_width - central_width) // 2,
            central_height,
            central_width,
        ]
    )
    first = tf.argmax(tf.cast(fits, tf.int32), output_type=tf.int32)
    return tf.cast(tf.where(tf.reduce_any(fits), boxes[first], central), tf.int32)


def _warped(box: tf.Tensor, size: int) -> Placement:
    return Placement(box, size / tf.cast(box[2:], tf.float32), tf.zeros((2,)))


def _central(height: tf.Tensor, width: tf.Tensor, size: int, share: float) -> Placement:
    sides = tf.stack([height, width])
    # As in `load_image`, the long side is truncated to whole pixels and the offsets are rounded.
    # The long side of a thin image may exceed 32 bits after resizing.
    longest = tf.cast(sides, tf.int64)
    resized = int(size / share) * longest // tf.reduce_min(longest)
    corner = tf.round((tf.cast(resized, tf.float64) - size) / 2)
    step = tf.cast(sides, tf.float64) / tf.cast(resized, tf.float64)  # between output pixels
    reach = 2 * tf.maximum(step, 1) + 1  # support of the bicubic kernel
    start = tf.maximum(tf.cast(tf.floor(corner * step - reach), tf.int32), 0)
    end = tf.minimum(tf.cast(tf.math.ceil((corner + size) * step + reach), tf.int32), sides)
    window = tf.concat([start, end - start], 0)
    translation = tf.cast(start, tf.float64) / step - corner
    scale = tf.cast(1 / step, tf.float32)
    return Placement(window, scale, tf.cast(translation, tf.float32))


def _resize(window: tf.Tensor, placement: Placement, size: int) -> tf.Tensor:
    """Resizes (H, W, 3) to (size, size, 3)."""
    (down, right), (top, left) = tf.unstack(placement.scale), tf.unstack(placement.translation)
    height, width, _ = tf.unstack(tf.shape(window))
    lines = tf.reshape(window, (height, -1))

    def width_first() -> tf.Tensor:
        return _resize_columns(_resize_rows(lines, right, left, size), down, top, size)

    def height_first() -> tf.Tensor:
        return _resize_rows(_resize_columns(lines, down, top, size), right, left, size)

    narrow = (height > TALLEST * size) & (width < size)
    return tf.reshape(tf.cond(narrow, height_first, width_first), (size, size, 3))


def _resize_rows(
    lines: tf.Tensor, scale: tf.Tensor, translation: tf.Tensor, size: int
) -> tf.Tensor:
    """Resizes the width of (H, 3 W).

    The channels are separated in between, because transposing scalars takes at most half as long as
    transposing pixels of three channels.
    """
    height = tf.shape(lines)[0]
    columns = tf.reshape(tf.transpose(lines), (-1, 3 * height))  # (W, 3 H)
    columns = _resize_columns(columns, scale, translation, size)
    return tf.transpose(tf.reshape(columns, (3 * size, height)))


def _resize_columns(
    lines: tf.Tensor, scale: tf.Tensor, translation: tf.Tensor, size: int
) -> tf.Tensor:
    """Resizes the height of (H, N).

    Each row is passed as one pixel with many channels, which the kernel sums several times faster
    than pixels of three channels.
    """
    line = tf.raw_ops.ScaleAndTranslate(
        images=lines[None, None],
        size=(1, size),
        scale=tf.stack([1.0, scale]),
        translation=tf.stack([0.0, translation]),
        kernel_type="keyscubic",
        antialias=True,
    )
    return _nearest_levels(line[0, 0])


def _nearest_levels(pixels: tf.Tensor) -> tf.Tensor:
    """Rounds float32 to uint8, with halves away from 0, and clips to 0..255.

    This is done as a quantization with scale 1, in one pass; adding, clipping and casting would
    need four.
    """
    quantized = tf.raw_ops.QuantizeV2(
        input=pixels,
        min_range=0.0,
        max_range=255.0,
        T=tf.quint8,
        mode="SCALED",
        round_mode="HALF_AWAY_FROM_ZERO",
    )
    return tf.bitcast(quantized.output, tf.uint8)


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel. Received: size={size}")
